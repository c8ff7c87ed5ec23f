"""The plan of all clients: each kind of client once, and a price for what they share.

Without a shared limit clients are independent (`problem`), and the plan is the best choice of each (`search`). Where
the server's link limits the bytes of a round, sum_c bytes_c <= B, a price mu >= 0 of a byte takes the limit's place:

    L(mu) = mu B + sum_c max over choices of (p_c worth_c - mu bytes_c)

is a bound for every mu, and again falls apart (Lagrangian relaxation, Everett, 1963). mu is raised until the choices
keep the limit, then halved between what keeps it and what does not; the best plan that kept it is taken.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from fedloom.errors import PlanError
from fedloom.planning.extra import optimizers
from fedloom.planning.infeasible import amount, explained, smallest_choices
from fedloom.planning.problem import ROUNDING, Client, Problem, fits
from fedloom.planning.search import GAP, Best, best_of

HALVINGS = 12


@dataclass(frozen=True)
class Solution:
    """best: of each client, in the order of the problem.  worth, bound: of the whole objective; no plan is worth more.
    kinds: how many different clients were solved.  total_bytes: of all messages of a round.
    """

    best: tuple[tuple[str, Best], ...]
    worth: float
    bound: float
    kinds: int
    total_bytes: float

    @property
    def gap(self) -> float:
        """(bound - worth) / |worth|: how much better the best plan could be at most."""
        return max(0.0, self.bound - self.worth) / max(abs(self.worth), 1e-300)


def solved(problem: Problem, gap: float = GAP) -> Solution:
    """The plan of every client. gap: relative, of each client's worth, that need not be closed.

    Deterministic: the same problem gives the same plan.
    Raises: PlanError naming every client that cannot train anything, and the limit that must move (`infeasible`); for
        a limit of the server's that cannot be kept; or where scipy is missing.
    """
    optimizers()  # what is missing is said always, not only where a choice is hard
    free = _at_price(problem, gap, 0.0)
    return free if _kept(problem, free) else _shared(problem, gap, free)


def _at_price(problem: Problem, gap: float, price: float) -> Solution:
    """Every client's best choice where a byte costs `price` of the objective."""
    weights, found = problem.weights(), dict[Hashable, Best | None]()
    for client in problem.clients:
        key = _key(client, price)
        if key not in found:
            found[key] = best_of(problem, client, gap, price / weights[client.name])
    best, lacking = [], []
    for client in problem.clients:
        one = found[_key(client, price)]
        lacking += [client] if one is None else []
        best += [] if one is None else [(client.name, one)]
    if lacking:
        raise explained(problem, lacking)
    worth = sum(weights[name] * one.worth for name, one in best)
    bound = sum(weights[name] * one.bound for name, one in best)
    bound += price * problem.server_bytes if price else 0.0
    return Solution(tuple(best), worth, bound, len(found), sum(one.cost.both_ways for _, one in best))


def _key(client: Client, price: float) -> Hashable:
    """Clients that have one plan: with a price of bytes, which counts for all alike, also by their share."""
    return (client.kind, client.share) if price else client.kind


def _kept(problem: Problem, found: Solution) -> bool:
    return found.total_bytes <= problem.server_bytes * (1 + ROUNDING)


def _shared(problem: Problem, gap: float, free: Solution) -> Solution:
    """The best plan that keeps the server's limit, of those at all prices that were tried, with the least bound."""
    _check_server(problem)
    low, high, tried = 0.0, max(abs(free.worth), 1e-9) / free.total_bytes, [free]
    while not _kept(problem, tried[-1]):
        low, high = (high, 2 * high) if len(tried) > 1 else (low, high)
        tried.append(_at_price(problem, gap, high))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tried.append(_at_price(problem, gap, middle))
        low, high = (low, middle) if _kept(problem, tried[-1]) else (middle, high)
    best = max((one for one in tried if _kept(problem, one)), key=lambda one: one.worth)
    bound = min(one.bound for one in tried)
    return Solution(best.best, best.worth, max(bound, best.worth), best.kinds, best.total_bytes)


def _check_server(problem: Problem) -> None:
    """Raises: PlanError where even the smallest messages of all clients are too many bytes."""
    least = dict[Hashable, float]()
    for client in problem.clients:
        if client.kind not in least:
            fitting = (cost.both_ways for _, cost in smallest_choices(problem, client) if fits(client, cost))
            least[client.kind] = min(fitting)
    needs, has = sum(least[client.kind] for client in problem.clients), problem.server_bytes
    if needs > has * (1 + ROUNDING):
        raise PlanError(
            "the bytes of a round are too few even for the smallest messages of all clients",
            where="server_bytes",
            expected=f"at least {amount('up', needs)}",
            found=amount("up", has),
            do=f"{amount('up', needs - has)} more are needed, or fewer clients in a round",
        )
