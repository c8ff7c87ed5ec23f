"""Who takes part in a round."""

from __future__ import annotations

import math

import torch

from fedloom import rng
from fedloom.rounds.world import active_clients
from fedloom.spec.experiment import Experiment


def roster(experiment: Experiment, round: int) -> tuple[str, ...]:
    """The clients of one round in sorted order: a share `rounds.participation` of them, drawn from the run's seed.

    Formula: max(min_clients, ceil(participation x clients)) without replacement.
    """
    names = [client.name for client in active_clients(experiment)]
    # A product such as 0.1 * 30 may lie a rounding error above the whole number that is meant.
    wanted = math.ceil(round_off(experiment.rounds.participation * len(names)))
    count = min(len(names), max(experiment.rounds.min_clients, wanted))
    drawn = torch.randperm(len(names), generator=rng.generator(experiment.seed, "roster", round))[:count]
    return tuple(sorted(names[index] for index in drawn.tolist()))


def round_off(value: float) -> float:
    """The value without the last digits of floating point."""
    return float(f"{value:.9g}")
