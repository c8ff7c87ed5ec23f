"""Clients that come and go, and clients that are asked beyond those that a round wants: what contradicts itself."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.aggregation.registry import METHODS
from fedloom.spec.experiment import Experiment
from fedloom.spec.problem import Problem
from fedloom.spec.secure_rules import drawn, drawn_of


def problems_of_churn(experiment: Experiment) -> list[Problem]:
    """Clients join before they leave, every round has enough of them, and nothing compares rounds of other clients."""
    parts = (_times, _rounds_with_enough, _compared, _over_selection, _late_counted)
    return [problem for part in parts for problem in part(experiment)]


def changes(experiment: Experiment) -> list[int]:
    """The rounds after the first of this run in which clients join or leave."""
    found = {round for client in experiment.active for round in (client.joins, client.leaves) if round is not None}
    return sorted(round for round in found if experiment.first_round < round <= experiment.training.rounds)


def _times(experiment: Experiment) -> Iterator[Problem]:
    last = experiment.training.rounds
    for index, client in enumerate(experiment.clients):
        for key in ("joins", "leaves"):
            round = getattr(client, key)
            if round is not None and round > last:
                why = f"expected a round up to the last one, {last}; found {round}"
                yield Problem(("clients", index, key), why)
        if client.joins is not None and client.leaves is not None and client.joins >= client.leaves:
            why = f"a client leaves after it joined, in round {client.joins}; found {client.leaves}"
            yield Problem(("clients", index, "leaves"), why)


def _rounds_with_enough(experiment: Experiment) -> Iterator[Problem]:
    """Also for the threshold of secure sums, where it is a number of clients."""
    if not any(client.joins or client.leaves for client in experiment.active):
        return
    for round in (experiment.first_round, *changes(experiment)):
        there = len(experiment.present(round))
        if there < max(1, experiment.rounds.min_clients):
            why = f"round {round} has {there} clients, as others have not joined or have left; expected at least "
            yield Problem(("rounds", "min_clients"), f"{why}{max(1, experiment.rounds.min_clients)}")
            return
        taking_part, secure = drawn_of(experiment, there), experiment.secure_aggregation
        if secure.enabled and not taking_part // 2 < secure.threshold_of(taking_part) <= taking_part:
            why = f"round {round} has {taking_part} clients, as others have not joined or have left; found a threshold "
            yield Problem(("secure_aggregation", "threshold"), f"{why}of {secure.threshold_of(taking_part)}")
            return


def _compared(experiment: Experiment) -> Iterator[Problem]:
    if not changes(experiment):
        return
    why = "compares held-out losses of rounds, which are of other clients once some join or leave (round "
    if experiment.training.patience is not None:
        yield Problem(("training", "patience"), f"{why}{changes(experiment)[0]}); leave it out")
    if experiment.gate.enabled:
        yield Problem(("gate", "enabled"), f"{why}{changes(experiment)[0]}); do without one of the two")


def _over_selection(experiment: Experiment) -> Iterator[Problem]:
    if experiment.rounds.over_selection is None:
        return
    path = ("rounds", "over_selection")
    if drawn(experiment) >= len(experiment.active):
        yield Problem(path, "means nothing where all clients are asked; expected participation below 1")
    if experiment.secure_aggregation.enabled:
        why = "drops answers that come late, and masks of a secure sum are for all that were asked; leave it out"
        yield Problem(path, why)
    if experiment.privacy.unit == "example":
        why = "drops answers that come late, and their clients have spent privacy on them; leave it out"
        yield Problem(path, why)


def _late_counted(experiment: Experiment) -> Iterator[Problem]:
    """A late answer is the change of an earlier model: only some sums have a place for it."""
    if experiment.rounds.late != "next":
        return
    path, method = ("rounds", "late"), METHODS.get(experiment.method.name)
    if method is not None and method.rebase is None:
        fitting = ", ".join(name for name, other in METHODS.items() if other.rebase is not None)
        why = f"what a client of {method.name} changed in one round is nothing that could be added in a later one; "
        yield Problem(path, f"{why}expected drop, or a method among {fitting}")
    if experiment.secure_aggregation.enabled:
        why = "counts an answer in a later round, and its masks are for the sum of its own; expected drop with "
        yield Problem(path, f"{why}[secure_aggregation]")
    if experiment.privacy.unit == "client":
        why = "counts clients in rounds that they were not drawn for, and with other weights, which the noise of "
        yield Problem(path, f'{why}[privacy] unit = "client" is not made for; expected drop')
    if experiment.robust.enabled:
        why = "counts changes of an earlier model, and [robust] compares changes of one; do without one of the two"
        yield Problem(path, why)
    if experiment.gate.enabled:
        why = "counts an answer once, and [gate] may reject the round in which it counts; do without one of the two"
        yield Problem(path, why)
