"""The best choice for every client: settings by their bounds, the best of them solved by HiGHS.

Without shared limits clients are independent, so each kind of client is solved once (`problem`). For one client:

1. every setting gets a bound, in one descent for each pair of bits and batch (`bounds`);
2. settings in the order of their bounds, until the next bound is not above the best choice so far:
   a. the bound of this setting alone, and a choice that fits, from its prices;
   b. items are excluded with which the best choice so far cannot be beaten (by their reduced worth);
   c. HiGHS solves what is left to the wanted gap (`highs`).

The gap that is reported is what bounds leave open: no choice is worth more than worth + gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fedloom.planning.bounds import bounds_of_all, chosen_at, priced
from fedloom.planning.cost import Usage, usage
from fedloom.planning.highs import improved
from fedloom.planning.infeasible import explained
from fedloom.planning.knapsack import Array, Knapsacks, knapsack, knapsacks
from fedloom.planning.problem import Client, Problem, worth
from fedloom.planning.values import Choice

GAP = 1e-3
ROUNDS_OF_ALL, ROUNDS_OF_ONE = 24, 40
EXACT = 1e-12


@dataclass(frozen=True)
class Best:
    """A client's best choice. worth: its term of the objective, without its share; no choice has more than bound."""

    choice: Choice
    cost: Usage
    worth: float
    bound: float


@dataclass(frozen=True)
class Solution:
    """best: of each client, in the order of the problem.  worth, bound: of the whole objective.
    kinds: how many different clients were solved.
    """

    best: tuple[tuple[str, Best], ...]
    worth: float
    bound: float
    kinds: int

    @property
    def gap(self) -> float:
        """(bound - worth) / |worth|: how much better the best plan could be at most."""
        return max(0.0, self.bound - self.worth) / max(abs(self.worth), 1e-300)


def solved(problem: Problem, gap: float = GAP) -> Solution:
    """The plan of every client. gap: relative, of each client's worth, that need not be closed.

    Deterministic: the same problem gives the same plan.
    Raises: PlanError naming every client that cannot train anything, and the limit that must move (`infeasible`); or
        where scipy is missing.
    """
    kinds = {client.kind: client for client in problem.clients}
    found = {kind: best_of(problem, client, gap) for kind, client in kinds.items()}
    lacking = [client for client in problem.clients if found[client.kind] is None]
    if lacking:
        raise explained(problem, lacking)
    best = tuple((client.name, one) for client in problem.clients if (one := found[client.kind]) is not None)
    weights = problem.weights()
    total = sum(weights[name] * one.worth for name, one in best)
    bound = sum(weights[name] * one.bound for name, one in best)
    return Solution(best, total, bound, len(kinds))


def best_of(problem: Problem, client: Client, gap: float = GAP) -> Best | None:
    """The best choice of one client, or None where nothing fits. Raises: as `solved`."""
    sacks = knapsacks(problem, client)
    bounds, prices = bounds_of_all(sacks, ROUNDS_OF_ALL)
    picked, setting, least, open_bound = None, (0, 0), -np.inf, -np.inf
    for k, d in _in_order(sacks, bounds):
        if _enough(bounds[k, d], least, gap):
            open_bound = max(open_bound, bounds[k, d])
            break
        found, bound = _best_in(sacks, k, d, prices[k], least, gap)
        open_bound = max(open_bound, min(bound, bounds[k, d]))
        if found is not None:
            picked, setting, least = found, (k, d), knapsack(sacks, k, d).total(found)[0]
    return None if picked is None else _described(problem, client, sacks, setting, picked, max(least, open_bound))


def _enough(bound: float, least: float, gap: float) -> bool:
    return least > -np.inf and bound <= least + gap * abs(least) + EXACT


def _in_order(sacks: Knapsacks, bounds: Array) -> Iterator[tuple[int, int]]:
    """Settings that may fit, the highest bound first; of equal ones the fastest."""
    order = np.lexsort((sacks.seconds.ravel(), -np.round(bounds, 12).ravel()))
    for index in order:
        k, d = (int(part) for part in np.unravel_index(index, bounds.shape))
        if sacks.possible[k, d]:
            yield k, d


def _best_in(sacks: Knapsacks, k: int, d: int, prices: Array, least: float, gap: float) -> tuple[Array | None, float]:
    """A choice in one setting that is worth more than `least`, if there is one, and the setting's bound."""
    sack = knapsack(sacks, k, d)
    picked = chosen_at(sack, prices)
    if picked is None:
        return None, -np.inf
    about = priced(sack, prices, ROUNDS_OF_ONE)
    candidates = [picked, chosen_at(sack, about.prices)]
    worths = [sack.total(one)[0] for one in candidates if one is not None]
    best = max(worths)
    picked = candidates[worths.index(best)] if best > least else None
    least = max(best, least)
    if _enough(about.bound, least, gap):
        return picked, about.bound
    found = improved(sack, about, least, gap * abs(least))
    return (picked if found.picked is None else found.picked), found.bound


def _described(
    problem: Problem, client: Client, sacks: Knapsacks, setting: tuple[int, int], picked: Array, bound: float
) -> Best:
    bits, batch, accumulation = sacks.pairs[setting[0]]
    modules, ladder = problem.architecture.modules, problem.menu.ranks
    ranks = tuple((module.name, ladder[j]) for module, j in zip(modules, picked, strict=True) if j >= 0)
    choice = Choice(ranks, bits, batch, accumulation)
    cost = usage(problem.architecture, client.machine, client.work, choice)
    value = worth(problem, choice, cost)
    return Best(choice, cost, value, max(bound, value))
