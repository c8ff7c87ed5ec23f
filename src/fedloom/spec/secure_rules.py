"""What secure aggregation cannot be combined with, and what it needs."""

from __future__ import annotations

import math

from fedloom.aggregation.registry import METHODS, settings_of, settings_problems
from fedloom.spec.experiment import Experiment
from fedloom.spec.problem import Problem


def problems_of_secure_sums(experiment: Experiment) -> list[Problem]:
    """A secure sum needs a method that sums, a bound on what is summed, clients enough, and nothing that sees one."""
    if not experiment.secure_aggregation.enabled:
        return []
    parts = (_summing_method, _summing_settings, _bound, _threshold, _seen_alone)
    return [problem for part in parts for problem in part(experiment)]


def _summing_method(experiment: Experiment) -> list[Problem]:
    method = METHODS.get(experiment.method.name)
    if method is None or method.reveals != "individuals":
        return []
    fitting = ", ".join(name for name, other in METHODS.items() if other.reveals != "individuals")
    why = f"{method.name} must see what each client sends; with secure aggregation expected one of {fitting}"
    return [Problem(("method", "name"), why)]


def _summing_settings(experiment: Experiment) -> list[Problem]:
    """Of a method that could do with sums, but not with these settings."""
    method, raw = METHODS.get(experiment.method.name), experiment.method.settings
    if method is None or settings_problems(method, raw):
        return []
    why = method.individuals(settings_of(method, raw))
    return [Problem(("method", "name"), f"{why}, which secure aggregation hides; leave it out")] if why else []


def _bound(experiment: Experiment) -> list[Problem]:
    if experiment.rounds.max_update_norm is not None:
        return []
    why = "missing; secure aggregation chooses its fixed point by it, and each client refuses to send what is beyond"
    return [Problem(("rounds", "max_update_norm"), why)]


def drawn(experiment: Experiment) -> int:
    """How many clients a round has, if all are there."""
    return drawn_of(experiment, len(experiment.active))


def drawn_of(experiment: Experiment, clients: int) -> int:
    """How many of so many clients a round has."""
    # Nine digits: 0.1 * 30 lies a rounding error above the whole number that is meant.
    share = math.ceil(float(f"{experiment.rounds.participation * clients:.9g}"))
    return min(clients, max(experiment.rounds.min_clients, share))


def _threshold(experiment: Experiment) -> list[Problem]:
    clients = drawn(experiment)
    threshold = experiment.secure_aggregation.threshold_of(clients)
    if max(2, clients // 2 + 1) <= threshold <= clients:
        return []
    why = (
        f"a round has {clients} clients: expected a threshold of more than half and at most all of them, at least 2; "
        f"found {threshold}"
    )
    return [Problem(("secure_aggregation", "threshold"), why)]


def _seen_alone(experiment: Experiment) -> list[Problem]:
    """Whatever would show the server one client's factors."""
    problems = []
    if experiment.evaluation.baselines:
        why = "trains each client alone, which shows the server what each learned; not with secure aggregation"
        problems.append(Problem(("evaluation", "baselines"), why))
    for way in ("up", "down"):
        found = getattr(experiment.wire, way)
        if found != "float32":
            why = f"secure sums are of exact numbers on an exact start; expected float32, found {found}"
            problems.append(Problem(("wire", way), why))
    return problems
