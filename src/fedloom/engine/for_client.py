"""What one client is told of an experiment, and what it fills in itself."""

from __future__ import annotations

from typing import Any

from fedloom.spec.experiment import Experiment, SecureAggregationTable


def experiment_of(experiment: Experiment, client: str, **own: Any) -> Experiment:
    """What one client needs to know: without the other clients, unless they all share one source of rows.

    own: what the client itself says in place of its table, such as where its data are.
    Raises: KeyError for a client that is not in the experiment.
    """
    # When it comes and goes, too, its assignments say.
    always = {"joins": None, "leaves": None}
    table = experiment.client(client).model_copy(update={**always, **own})
    apart = experiment.data.source is None or table.data is not None
    others = () if apart else tuple(other for other in experiment.clients if other.name != client)
    # One client alone sums nothing securely: how it masks what it sends, its assignments say.
    secure = SecureAggregationTable()
    alone = {"clients": (client,), "min_clients": 1, "participation": 1.0, "over_selection": None, "late": "drop"}
    rounds = experiment.rounds.model_copy(update=alone)
    return experiment.model_copy(update={"clients": (table, *others), "rounds": rounds, "secure_aggregation": secure})


def with_labels(experiment: Experiment, labels: tuple[str, ...]) -> Experiment:
    """The experiment with its class names filled in."""
    if not labels:
        return experiment
    return experiment.model_copy(update={"model": experiment.model.model_copy(update={"labels": tuple(labels)})})
