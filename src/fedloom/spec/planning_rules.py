"""Rules of what is left to the planner."""

from __future__ import annotations

from fedloom.aggregation.method import Law
from fedloom.aggregation.registry import METHODS
from fedloom.spec.experiment import Experiment
from fedloom.spec.problem import Problem


def problems_of_planning(experiment: Experiment) -> list[Problem]:
    """Batches that divide a step, a ladder of ranks that rises, and methods that can carry what is chosen."""
    found = [*_batches(experiment), *_ladder(experiment), *_methods(experiment)]
    return [*found, *_patterns(experiment), *_without_a_rank(experiment)]


def _batches(experiment: Experiment) -> list[Problem]:
    rows = experiment.training.batch_size * experiment.training.accumulation
    wrong = {
        index: client.batch_size
        for index, client in enumerate(experiment.clients)
        if isinstance(client.batch_size, int) and rows % client.batch_size
    }
    if not wrong:
        return []  # before all divisors are looked for: of many rows that takes long
    divisors = ", ".join(str(size) for size in range(1, rows + 1) if rows % size == 0)
    what = f"expected one of {divisors}, as a step has {rows} rows ([training] batch_size x accumulation); found"
    return [Problem(("clients", index, "batch_size"), f"{what} {found}") for index, found in wrong.items()]


def _ladder(experiment: Experiment) -> list[Problem]:
    ranks = experiment.planning.ranks
    if ranks and min(ranks) >= 1 and list(ranks) == sorted(set(ranks)):
        return []
    return [Problem(("planning", "ranks"), f"expected whole numbers from 1, rising; found {list(ranks)}")]


def _methods(experiment: Experiment) -> list[Problem]:
    method = METHODS.get(experiment.method.name)
    if method is None or Law.UNEQUAL_RANKS in method.laws:
        return []
    accepting = ", ".join(name for name, other in METHODS.items() if Law.UNEQUAL_RANKS in other.laws)
    message = f'"auto" gives clients unequal ranks, and {method.name} needs one rank; name it, or use {accepting}'
    return [
        Problem(("clients", index, "rank"), message)
        for index, client in enumerate(experiment.clients)
        if client.rank == "auto"
    ]


def _patterns(experiment: Experiment) -> list[Problem]:
    message = 'means nothing beside rank = "auto", which chooses the rank of every layer'
    return [
        Problem(("clients", index, "rank_pattern"), message)
        for index, client in enumerate(experiment.clients)
        if client.rank == "auto" and client.rank_pattern
    ]


def _without_a_rank(experiment: Experiment) -> list[Problem]:
    message = 'is left to the planner, which plans for clients with rank = "auto" alone; name it, or set rank = "auto"'
    return [
        Problem(("clients", index, key), message)
        for index, client in enumerate(experiment.clients)
        for key in ("batch_size", "bits")
        if client.rank != "auto" and getattr(client, key) == "auto"
    ]
