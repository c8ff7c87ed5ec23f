"""Every choice that there is, one after the other: only for very small problems."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from fedloom.planning.cost import Usage, usage
from fedloom.planning.problem import Client, Problem, fits, worth
from fedloom.planning.values import Choice


def every_choice(problem: Problem, client: Client) -> Iterator[tuple[Choice, Usage]]:
    """All bits, batches, and ranks or none of all modules; whether it fits or not."""
    modules = problem.architecture.modules
    ladders = [(0, *(rank for rank in problem.menu.ranks if rank <= module.full_rank)) for module in modules]
    measured = {speed.bits for speed in client.machine.speeds}
    for bits, _ in problem.menu.kept:
        for batch in problem.menu.batches:
            if bits not in measured or client.work.examples % batch:
                continue
            for picked in product(*ladders):
                ranks = tuple((module.name, rank) for module, rank in zip(modules, picked, strict=True) if rank)
                if ranks:
                    choice = Choice(ranks, bits, batch, client.work.examples // batch)
                    yield choice, usage(problem.architecture, client.machine, client.work, choice)


def best_worth(problem: Problem, client: Client) -> float | None:
    """The worth of the best choice that fits; None where none does."""
    fitting = (worth(problem, *one) for one in every_choice(problem, client) if fits(client, one[1]))
    return max(fitting, default=None)
