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
    Formula: wanted = max(min_clients, ceil(participation x clients)), and ceil(wanted x (1 + over_selection)) are
        drawn, without replacement.
    without: clients that are shut out; the share is of the others.  seed: of the draw; left out: that of the run.
    Raises: RunError if nobody is left.
    """
    return tuple(sorted(drawn(experiment, round, without, seed=seed)))


def drawn(
    experiment: Experiment, round: int, without: Collection[str] = (), *, seed: int | None = None
) -> tuple[str, ...]:
    """The same clients in the order of the draw: the last ones are those that `rounds.over_selection` adds."""
    names = _available(experiment, round, without)
    more = 1 + (experiment.rounds.over_selection or 0.0)
    count = min(len(names), math.ceil(round_off(_wanted(experiment, names) * more)))
    draws = rng.generator(experiment.seed if seed is None else seed, "roster", round)
    order = torch.randperm(len(names), generator=draws)[:count]
    return tuple(names[index] for index in order.tolist())


def wanted(experiment: Experiment, round: int, without: Collection[str] = ()) -> int:
    """How many contributions a round waits for. Raises: as `roster`."""
    return _wanted(experiment, _available(experiment, round, without))


def _available(experiment: Experiment, round: int, without: Collection[str]) -> list[str]:
    names = sorted(client.name for client in experiment.present(round) if client.name not in without)
    if not names:
        raise RunError(
            "every client is shut out, away or still at work on an earlier round",
            where=f"round {round}",
            expected="at least one that may take part",
            found=f"excluded or at work: {', '.join(sorted(without))}",
            do="Let one in again; the journal says why each was excluded",
        )
    return names


def _wanted(experiment: Experiment, names: Collection[str]) -> int:
    # A product such as 0.1 * 30 may lie a rounding error above the whole number that is meant.
    share = math.ceil(round_off(experiment.rounds.participation * len(names)))
    return min(len(names), max(experiment.rounds.min_clients, share))


def round_off(value: float) -> float:
    """The value without the last digits of floating point."""
    return float(f"{value:.9g}")
