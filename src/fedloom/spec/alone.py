"""The configuration of a baseline: one client of a federation trains by itself, with the same rows, steps and seeds."""

from __future__ import annotations

from typing import Any

from fedloom.aggregation.registry import method, settings_of
from fedloom.spec.experiment import Experiment, SecureAggregationTable, ServerTable, WireTable
from fedloom.spec.gate_table import GateTable
from fedloom.spec.robust_table import RobustTable


def alone_experiment(experiment: Experiment, client: str) -> Experiment:
    """The same experiment with one participant: factor-wise averaging of one client gives that client."""
    always = experiment.client(client).model_copy(update={"joins": None, "leaves": None})
    return experiment.model_copy(
        update={
            "name": client,
            "clients": tuple(always if each.name == client else each for each in experiment.clients),
            "method": experiment.method.model_validate({"name": "fedit"}),
            "server": ServerTable(),
            "wire": WireTable(),
            "secure_aggregation": SecureAggregationTable(),
            "gate": GateTable(),
            "robust": RobustTable(),
            "training": experiment.training.model_copy(
                update={"proximal": 0.0, "importance": False, **_head_optimizer(experiment)}
            ),
            "rounds": experiment.rounds.model_copy(
                update={
                    "clients": (client,),
                    "min_clients": 1,
                    "participation": 1.0,
                    "over_selection": None,
                    "late": "drop",
                }
            ),
            "evaluation": experiment.evaluation.model_copy(update={"baselines": False, "question": None}),
        }
    )


def _head_optimizer(experiment: Experiment) -> dict[str, Any]:
    """The federation's, so that a client alone does not differ in that; nothing where there is no head."""
    if not experiment.model.classifies:
        return {}
    chosen = method(experiment.method.name)
    rules = chosen.rules(settings_of(chosen, experiment.method.settings))
    return {"head_optimizer": experiment.training.head_optimizer_value(rules.head_optimizer)}
