"""What [robust] needs, and what it cannot be combined with."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.registry import METHODS
from fedloom.spec.experiment import Experiment
from fedloom.spec.problem import Problem
from fedloom.spec.secure_rules import drawn


def problems_of_robust_rules(experiment: Experiment) -> list[Problem]:
    """Rules that compare clients must see each one, know what it changed, and have enough of them."""
    if not experiment.robust.enabled:
        return []
    parts = (_seen_alone, _one_model, _counted, _beyond_the_middle, _weighed, _same_numbers)
    return [problem for part in parts for problem in part(experiment)]


def least_clients(rule: str, max_bad: int) -> int:
    """How many contributions of a round a rule needs to stand `max_bad` malicious ones."""
    if rule in ("krum", "multi-krum"):
        return 2 * max_bad + 3
    return 2 * max_bad + 1 if rule in ("cosine", "trimmed-mean") else 1


def _seen_alone(experiment: Experiment) -> Iterator[Problem]:
    if experiment.secure_aggregation.enabled:
        why = "compares what single clients send, which [secure_aggregation] hides; do without one of the two"
        yield Problem(("robust", "enabled"), why)
    if experiment.privacy.unit == "client":
        why = (
            "weighs each client by what the others sent, so that one client moves a sum by more than the noise of "
            '[privacy] unit = "client" is for, which clips each client already; do without one of the two'
        )
        yield Problem(("robust", "enabled"), why)


def _one_model(experiment: Experiment) -> Iterator[Problem]:
    method = METHODS.get(experiment.method.name)
    if method is not None and method.personal:
        fitting = ", ".join(name for name, other in METHODS.items() if not other.personal)
        why = f"compares changes of one global model, and clients of {method.name} have models of their own; "
        yield Problem(("robust", "enabled"), f"{why}expected a method among {fitting}")


def _counted(experiment: Experiment) -> Iterator[Problem]:
    robust, clients = experiment.robust, drawn(experiment)
    least = least_clients(robust.rule, robust.max_bad)
    if clients < least:
        why = f"{robust.rule} stands {robust.max_bad} malicious of at least {least} clients; a round has {clients}"
        yield Problem(("robust", "max_bad"), why)


def _beyond_the_middle(experiment: Experiment) -> Iterator[Problem]:
    """Who may be left out must be longer than most, or two clients that disagree leave each other out."""
    ratio = experiment.robust.drop_norm_ratio
    if 0 < ratio < 1:
        why = f"is in medians, and below 1 it leaves ordinary clients out; expected 1 or more, or 0; found {ratio:g}"
        yield Problem(("robust", "drop_norm_ratio"), why)


def _weighed(experiment: Experiment) -> Iterator[Problem]:
    """The geometric median is made of weights, which a method must follow."""
    method = METHODS.get(experiment.method.name)
    if experiment.robust.rule == "geometric-median" and method is not None and Law.SPLIT not in method.laws:
        why = f"geometric-median says what each client weighs, and {method.name} weighs them by its own rule; "
        yield Problem(("robust", "rule"), f"{why}take another rule, or another method")


def _same_numbers(experiment: Experiment) -> Iterator[Problem]:
    """The trimmed mean compares number with number."""
    method = METHODS.get(experiment.method.name)
    if experiment.robust.rule != "trimmed-mean" or method is None:
        return
    if not averages_factors(method):
        fitting = ", ".join(name for name, other in METHODS.items() if averages_factors(other))
        why = f"trimmed-mean is for methods that average factors ({fitting}); found {method.name}"
        yield Problem(("robust", "rule"), why)
    ranks = {(client.rank, *sorted(client.rank_pattern.items())) for client in experiment.active}
    if len(ranks) > 1 or any(client.rank == "auto" for client in experiment.active):
        found = ", ".join(f"{client.name} {client.rank}" for client in experiment.active)
        why = f"trimmed-mean needs clients of one rank, given in the file; found {found}"
        yield Problem(("robust", "rule"), why)


def averages_factors(method: Method) -> bool:
    """Whether a method's sums are of plain factors, number by number, and of nothing else."""
    return method.reveals == "sum" and Law.SPLIT in method.laws and not method.personal
