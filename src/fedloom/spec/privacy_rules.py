"""What [privacy] needs to be a promise, and what it cannot be combined with."""

from __future__ import annotations

from collections.abc import Iterator

from fedloom.aggregation.method import Law
from fedloom.aggregation.registry import METHODS, settings_of, settings_problems
from fedloom.spec.experiment import Experiment
from fedloom.spec.problem import Problem
from fedloom.spec.secure_rules import drawn


def problems_of_privacy(experiment: Experiment) -> list[Problem]:
    """[privacy] says all that a promise needs, once, and nothing in the run breaks it."""
    privacy = experiment.privacy
    found = [*_of_canaries(experiment)]
    if privacy.unit == "none":
        return found
    if privacy.delta is None:
        found.append(Problem(("privacy", "delta"), "missing; expected a chance below 1 / rows of any client: 1e-5"))
    if (privacy.epsilon is None) == (privacy.noise_multiplier is None):
        what = "missing; expected epsilon or" if privacy.epsilon is None else "is given beside"
        found.append(Problem(("privacy", "epsilon"), f"{what} noise_multiplier; the other one follows from it"))
    if experiment.evaluation.baselines:
        message = "trains every client's rows a second time, which would spend as much again; set it to false"
        found.append(Problem(("evaluation", "baselines"), message))
    return [*found, *_of_reading(experiment), *_of_clients(experiment)]


def _of_canaries(experiment: Experiment) -> Iterator[Problem]:
    """There are made-up texts, and no made-up images."""
    if experiment.privacy.canaries and experiment.model.task == "image-classification":
        yield Problem(("privacy", "canaries"), "are texts, and [model] task is image-classification; set it to 0")


def _of_reading(experiment: Experiment) -> Iterator[Problem]:
    """Noise on each step of training covers what training learns from an example, and nothing else."""
    method, raw = METHODS.get(experiment.method.name), experiment.method.settings
    if experiment.privacy.unit != "example" or method is None or settings_problems(method, raw):
        return
    if why := method.reads(settings_of(method, raw)):
        yield Problem(("method", "name"), f"{why}, which the noise on training does not cover; leave it out")


def _of_clients(experiment: Experiment) -> Iterator[Problem]:
    """Noise on the sum of a round bounds one client's part only if that is all that depends on it."""
    if experiment.privacy.unit != "client":
        return
    fitting = [name for name, method in METHODS.items() if method.reveals == "sum" and Law.SPLIT in method.laws]
    name = experiment.method.name
    if name in METHODS and name not in fitting:
        why = "noise on the sum of a round protects clients only where plain factors are added up; expected one of "
        yield Problem(("method", "name"), f"{why}{', '.join(fitting)}; found {name}")
    if experiment.rounds.weighting != "uniform":
        why = 'one client\'s part is bounded only if all count alike; expected "uniform", found '
        yield Problem(("rounds", "weighting"), f"{why}{experiment.rounds.weighting!r}")
    if experiment.secure_aggregation.enabled:
        yield from _of_shared_noise(experiment)


def _of_shared_noise(experiment: Experiment) -> Iterator[Problem]:
    """Noise that clients add themselves has to be enough in every sum that the threshold lets through."""
    privacy, clients = experiment.privacy, drawn(experiment)
    threshold = max(experiment.secure_aggregation.threshold_of(clients), experiment.rounds.min_clients)
    least = (clients + privacy.colluding) // 2 + 1
    if privacy.colluding and not least <= threshold <= clients:
        why = (
            f"of {clients} clients a round, {privacy.colluding} that collude need a threshold from {least} to "
            f"{clients}: else two sums of one round can be opened, or none has enough noise; found {threshold}"
        )
        yield Problem(("privacy", "colluding"), why)
