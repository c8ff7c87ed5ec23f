"""The best that can be done without a plan: one rank on all modules, one batch and one number of bits for everyone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from fedloom.planning.cost import Usage, amounts, ranked, usage_at
from fedloom.planning.problem import ROUNDING, Client, Problem, covered, fits, pairs, rates_of
from fedloom.planning.values import Choice, Setting


@dataclass(frozen=True)
class UniformChoice:
    """choice: of the first client; the others have the same ranks, bits and batch.  rank: capped by a module's full
    rank.  worth: objective.  covered: by data.  round_seconds: of the slowest client.
    """

    choice: Choice
    rank: int
    worth: float
    covered: float
    round_seconds: float


def best_uniform(problem: Problem) -> UniformChoice | None:
    """The uniform configuration that fits every client and is worth most, of equals the fastest; None if none fits."""
    found = (_tried(problem, choice, rank) for choice, rank in _candidates(problem))
    return max((one for one in found if one is not None), key=lambda one: (one.worth, -one.round_seconds), default=None)


def _candidates(problem: Problem) -> Iterator[tuple[Choice, int]]:
    first = pairs(problem, problem.clients[0])
    for rank, (bits, batch, passes) in product(problem.menu.ranks, first):
        allowed = [one for one in problem.menu.ranks if one <= rank]
        ranks = [
            (module.name, max((one for one in allowed if one <= module.full_rank), default=0))
            for module in problem.architecture.modules
        ]
        kept = tuple(one for one in ranks if one[1])
        if kept:
            yield Choice(kept, bits, batch, passes), rank


def _tried(problem: Problem, choice: Choice, rank: int) -> UniformChoice | None:
    chosen = ranked(problem.architecture, choice)
    sums, first = amounts(chosen), min(module.block for module, _ in chosen)
    weights, used = problem.weights(), dict[tuple, Usage]()
    for client in problem.clients:
        if client.kind not in used:
            passes = _passes(problem, client, choice)
            if passes is None:
                return None
            setting = Setting(choice.bits, choice.batch, passes, first)
            used[client.kind] = usage_at(rates_of(problem, client, setting), sums)
        if not fits(client, used[client.kind]):
            return None
    if sum(used[client.kind].both_ways for client in problem.clients) > problem.server_bytes * (1 + ROUNDING):
        return None
    share = covered(problem, choice)
    kept, price = problem.menu.kept_at(choice.bits) * share, problem.menu.second_price
    worth = sum(weights[client.name] * (kept - price * used[client.kind].seconds) for client in problem.clients)
    return UniformChoice(choice, rank, worth, share, max(one.seconds for one in used.values()))


def _passes(problem: Problem, client: Client, choice: Choice) -> int | None:
    """Passes of a step with this batch, None where the client cannot have the batch or the bits."""
    found = ((bits, batch, passes) for bits, batch, passes in pairs(problem, client))
    return next((passes for bits, batch, passes in found if (bits, batch) == (choice.bits, choice.batch)), None)
