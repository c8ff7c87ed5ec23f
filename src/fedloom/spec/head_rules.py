"""What a head that is averaged class by class cannot be combined with."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.spec.experiment import Experiment
from fedloom.spec.problem import Problem

WHERE = ("rounds", "head_weighting")


def problems_of_heads(experiment: Experiment) -> list[Problem]:
    """Each client says how many examples of each class it has, and they are its weight in the last layer's rows."""
    if experiment.rounds.head_weighting != "classes":
        return []
    return [Problem(WHERE, f'"classes" {why}; leave it out') for why in _reasons(experiment)]


def _reasons(experiment: Experiment) -> Iterator[str]:
    if experiment.privacy.unit == "example":
        yield 'sends counts that the noise of [privacy] unit = "example" does not cover'
    if experiment.privacy.unit == "client":
        yield 'lets one client move a row by more than the noise of [privacy] unit = "client" is for'
    if experiment.secure_aggregation.enabled:
        yield "sends each client's counts of classes, which [secure_aggregation] hides"
    if experiment.robust.enabled:
        yield "lets a client choose what it weighs in each class, which [robust] is to bound"
