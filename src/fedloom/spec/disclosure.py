"""What each message of a run shows to whom, in words, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.aggregation.method import Method
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


_KEPT = {False: "a part of them stays at the client", True: "its mixers and its optimizer's state stay at the client"}


def disclosures(experiment: Experiment) -> tuple[str, ...]:
    """One line for each receiver, of an experiment without problems."""
    return tuple(_disclosures(experiment))


def planting(canaries: int) -> str | None:
    """That made-up rows are trained on, in words; None where none are. canaries: of each client."""
    return PLANTED.format(count=canaries) if canaries else None


def _returned(experiment: Experiment, method: Method) -> str:
    if not method.resumes:
        return "what the server makes of their factors, as the next start"
    alone = ", which with two clients is the other's adapter" if len(experiment.active) == 2 else ""
    return f"the mean of their adapters, beside its own{alone}"


def _disclosures(experiment: Experiment) -> Iterator[str]:
    method, head = METHODS[experiment.method.name], " and head" if experiment.model.classifies else ""
    matters = "how much each layer matters there"
    of, and_ = (f", and of {matters}", f", and {matters}") if experiment.training.importance else ("", "")
    secure, shared = experiment.secure_aggregation.enabled, experiment.privacy.unit == "client"
    noise = experiment.privacy.unit == "example" or (secure and shared)
    openly, trained = UNDER_NOISE if noise else OPENLY, "trained under the noise of [privacy]" if noise else "trained"
    kept = "" if not method.personal else f"; {_KEPT[method.resumes]}"
    if secure:
        clients = drawn(experiment)
        least = experiment.secure_aggregation.threshold_of(clients)
        under = ", under noise that they add together" if shared else ""
        seen = f"the sum of the factors{head} of {least} to {clients} clients{under}{kept}{of}"
        yield f"the server sees, of each round: {seen}"
        yield f"the server sees, of each client: {openly}"
        made = "their mean with its own, less itself" if method.resumes else "their sum as the next start"
        yield f"a client sees, of the others: {made}; names, ranks and public keys"
    else:
        yield f"the server sees, of each client: the factors{head} that it {trained}{kept}{and_}; {openly}"
        yield f"a client sees, of the others: {_returned(experiment, method)}"
    if experiment.model.classifies and experiment.model.labels is None:
        yield "the server sees, of each client: which classes it has (list them in model.labels, and it sees none)"
    planted = planting(experiment.privacy.canaries)
    if planted:
        yield planted
