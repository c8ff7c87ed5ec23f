"""Who takes part in a round."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch

from fedloom import rng
from fedloom.errors import RunError
from fedloom.spec.experiment import Experiment


def roster(
    experiment: Experiment, round: int, without: Collection[str] = (), *, seed: int | None = None
) -> tuple[str, ...]:
    """The clients of one round in sorted order: a share `rounds.participation` of them, drawn from the run's seed.

    Drawn from are those that have joined and not left, but for `without`.
    Formula: max(min_clients, ceil(participation x clients)) without replacement.
    without: clients that are shut out; the share is of the others.  seed: of the draw; left out: that of the run.
    Raises: RunError if nobody is left.
    """
    names = sorted(client.name for client in experiment.present(round) if client.name not in without)
    if not names:
        raise RunError(
            "every client is shut out or away",
            where=f"round {round}",
            expected="at least one that may take part",
            found=f"excluded: {', '.join(sorted(without))}",
            do="Let one in again; the journal says why each was excluded",
        )
    # A product such as 0.1 * 30 may lie a rounding error above the whole number that is meant.
    wanted = math.ceil(round_off(experiment.rounds.participation * len(names)))
    count = min(len(names), max(experiment.rounds.min_clients, wanted))
    draws = rng.generator(experiment.seed if seed is None else seed, "roster", round)
    drawn = torch.randperm(len(names), generator=draws)[:count]
    return tuple(sorted(names[index] for index in drawn.tolist()))


def round_off(value: float) -> float:
    """The value without the last digits of floating point."""
    return float(f"{value:.9g}")
