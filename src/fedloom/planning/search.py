"""The best choice for one client: settings by their bounds, the best of them solved by HiGHS.

1. every setting gets a bound, in one descent for each pair of bits and batch (`bounds`);
2. the setting with the highest bound is taken, until that bound is not above the best choice so far:
   a. for the first time: the prices of its limits by descent, and if need be by the linear relaxation (HiGHS), with
      items excluded that the best choice so far rules out (by reduced worth). They give a tighter bound for this
      and other settings, and suggest a choice that fits;
   b. for the second time: HiGHS solves the integer program over the items that are left (`highs`).

What is left of the highest bound is the gap that is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fedloom.planning.bounds import Priced, bounds_of_all, bounds_with, chosen_at, priced, priced_at
from fedloom.planning.cost import Usage, usage
from fedloom.planning.exchange import exchanged
from fedloom.planning.highs import improved, relaxed_prices
from fedloom.planning.knapsack import Array, Knapsack, Knapsacks, knapsack, knapsacks
from fedloom.planning.problem import Client, Problem, worth
from fedloom.planning.values import Choice

GAP = 1e-3
ROUNDS_OF_ALL, ROUNDS_OF_ONE = 16, 30
EXACT = 1e-12


@dataclass(frozen=True)
class Best:
    """A client's best choice. worth: its term of the objective, without its share.
    bound: no choice has a larger worth - byte price x bytes, both ways; without a price, no larger worth.
    """

    choice: Choice
    cost: Usage
    worth: float
    bound: float


def best_of(problem: Problem, client: Client, gap: float = GAP, byte_price: float = 0.0) -> Best | None:
    """The best choice of one client, or None where nothing fits. Deterministic.

    gap: of its worth, relative, that need not be closed.  byte_price: worth that a byte up or down takes away.
    Raises: PlanError where scipy is missing, or the client has no settings at all.
    """
    search = Search(knapsacks(problem, client, byte_price), gap)
    while search.advance():
        pass
    if search.picked is None:
        return None
    return _described(problem, client, search, byte_price)


class Search:
    """The settings of one client, the one with the highest bound first: refined once, then solved, then closed."""

    def __init__(self, sacks: Knapsacks, gap: float) -> None:
        self.sacks, self.gap = sacks, gap
        self.bounds, self.prices = bounds_of_all(sacks, ROUNDS_OF_ALL)
        self.refined: dict[tuple[int, int], Priced] = {}
        self.picked: Array | None = None
        self.setting, self.least, self.closed = (0, 0), -np.inf, -np.inf

    @property
    def bound(self) -> float:
        """No choice is worth more."""
        return max(self.least, self.closed, float(self.bounds.max()))

    def advance(self) -> bool:
        """One more step; False where there is nothing left that could be better by more than the gap."""
        k, d = self._next()
        bound = self.bounds[k, d]
        if bound == -np.inf or self._enough(bound):
            return False
        sack = knapsack(self.sacks, k, d)
        if not sack.has_items:
            self.bounds[k, d] = -np.inf
        elif (k, d) in self.refined:
            self._solve(sack, k, d)
        else:
            self._refine(sack, k, d)
        return True

    def _next(self) -> tuple[int, int]:
        """The highest bound; of equal ones the fastest setting."""
        best = self.bounds >= self.bounds.max() - EXACT
        index = np.where(best, self.sacks.seconds, np.inf).argmin()
        k, d = np.unravel_index(index, self.bounds.shape)
        return int(k), int(d)

    def _enough(self, bound: float) -> bool:
        return self.least > -np.inf and bound <= self.least + self.gap * abs(self.least) + EXACT

    def _refine(self, sack: Knapsack, k: int, d: int) -> None:
        """Prices for this setting alone, by descent and if need be by the linear relaxation; they hold for all."""
        about = priced(sack, self.prices[k], ROUNDS_OF_ONE)
        picked = chosen_at(sack, about.prices)
        self._offer(sack, k, d, picked)
        if not self._enough(about.bound):
            self._offer(sack, k, d, exchanged(sack, about, picked))
        if not self._enough(about.bound):
            about = self._relax(sack, k, d, about)
        self.refined[k, d] = about
        self.bounds = np.minimum(self.bounds, bounds_with(self.sacks, about.prices))
        self.bounds[k, d] = min(self.bounds[k, d], about.bound)

    def _relax(self, sack: Knapsack, k: int, d: int, about: Priced) -> Priced:
        """The prices of the linear relaxation, and the choice that they suggest, improved by exchanges."""
        exact = relaxed_prices(sack, about, self.least)
        if exact is not None:
            about = min(about, priced_at(sack, exact), key=lambda one: one.bound)
            picked = chosen_at(sack, exact)
            self._offer(sack, k, d, picked)
            if not self._enough(about.bound):
                self._offer(sack, k, d, exchanged(sack, about, picked))
        return about

    def _solve(self, sack: Knapsack, k: int, d: int) -> None:
        """HiGHS over what is left of this setting; what its bound leaves open then stays open."""
        found = improved(sack, self.refined[k, d], self.least, self.gap * abs(self.least))
        if found.picked is not None:
            self._offer(sack, k, d, found.picked)
        self.closed = max(self.closed, min(found.bound, self.bounds[k, d]))
        self.bounds[k, d] = -np.inf

    def _offer(self, sack: Knapsack, k: int, d: int, picked: Array) -> None:
        value = sack.total(picked)[0]
        if value > self.least:
            self.picked, self.setting, self.least = picked, (k, d), value


def _described(problem: Problem, client: Client, search: Search, byte_price: float) -> Best:
    bits, batch, accumulation = search.sacks.pairs[search.setting[0]]
    modules, ladder = problem.architecture.modules, problem.menu.ranks
    picked: Iterable[int] = () if search.picked is None else search.picked
    ranks = tuple((module.name, ladder[j]) for module, j in zip(modules, picked, strict=True) if j >= 0)
    choice = Choice(ranks, bits, batch, accumulation)
    cost = usage(problem.architecture, client.machine, client.work, choice)
    value = worth(problem, choice, cost)
    return Best(choice, cost, value, max(search.bound, value - byte_price * cost.both_ways))
