"""What each message of a run shows to whom, in words, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.aggregation.registry import METHODS
from fedloom.spec.experiment import Experiment
from fedloom.spec.secure_rules import drawn

ALWAYS = "its numbers of rows and a digest of them, loss and scores on the rows held out"
OPENLY = f"{ALWAYS}, training loss, gradient norms, numbers of tokens, times"
PLANTED = (
    "canaries: {count} made-up rows are planted at each client for fedloom audit-privacy; a coin decides for each "
    "whether it is trained on, as one of the client's rows, and no measurement on held-out rows has any"
)
UNDER_NOISE = f"{ALWAYS} (exactly, no noise covers them), seconds of training"


def disclosures(experiment: Experiment) -> tuple[str, ...]:
    """One line for each receiver, of an experiment without problems."""
    return tuple(_disclosures(experiment))


def planting(canaries: int) -> str | None:
    """That made-up rows are trained on, in words; None where none are. canaries: of each client."""
    return PLANTED.format(count=canaries) if canaries else None


def _disclosures(experiment: Experiment) -> Iterator[str]:
    method, head = METHODS[experiment.method.name], " and head" if experiment.model.classifies else ""
    noise = experiment.privacy.unit == "example"
    openly, trained = UNDER_NOISE if noise else OPENLY, "trained under the noise of [privacy]" if noise else "trained"
    kept = "; a part of them stays at the client" if method.personal else ""
    if experiment.secure_aggregation.enabled:
        clients = drawn(experiment)
        least = experiment.secure_aggregation.threshold_of(clients)
        yield f"the server sees, of each round: the sum of the factors{head} of {least} to {clients} clients{kept}"
        yield f"the server sees, of each client: {openly}"
        yield "a client sees, of the others: their sum as the next start; names, ranks and public keys"
    else:
        yield f"the server sees, of each client: the factors{head} that it {trained}{kept}; {openly}"
        yield "a client sees, of the others: what the server makes of their factors, as the next start"
    if experiment.model.classifies and experiment.model.labels is None:
        yield "the server sees, of each client: which classes it has (list them in model.labels, and it sees none)"
    planted = planting(experiment.privacy.canaries)
    if planted:
        yield planted
