"""What each round gained, and what a further one might: pure arithmetic on held-out losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, isfinite, log

from fedloom.report.values import RoundSummary

LEAST_GAINS = 4  # below, a curve through them says nothing
WINDOW = 6  # gains that are looked at: the first rounds gain in another way than the last


@dataclass(frozen=True)
class Gain:
    """From one measurement to the next. loss: after `round`.  rounds: between them.  per_round: may be below 0."""

    round: int
    loss: float
    rounds: int
    per_round: float


@dataclass(frozen=True)
class Outlook:
    """What the next round may lower the loss by, and all further ones together; each from lowest to highest.

    factor: of each round's gain in that of the one before.
    """

    next_gain: tuple[float, float]
    all_further: tuple[float, float]
    factor: float


def gains_of(rounds: Sequence[RoundSummary]) -> tuple[Gain, ...]:
    """Of every two measurements one after the other, on all clients' rows.

    Only rounds that the same clients measured as in the last one can be compared; others are left out.
    """
    found = [(one.number, one.scores) for one in rounds if one.scores.pooled is not None]
    clients = set(found[-1][1].clients) if found else set()
    losses = [(number, stage.pooled.loss) for number, stage in found if stage.pooled and set(stage.clients) == clients]
    losses = [(number, loss) for number, loss in losses if isfinite(loss)]
    return tuple(
        Gain(after, low, after - before, (high - low) / (after - before))
        for (before, high), (after, low) in pairwise(losses)
    )


def outlook(gains: Sequence[Gain]) -> Outlook | str:
    """A further round, or why nothing can be said of it: "few", "worse" or "steady".

    Assumption: the gain of a round is a fixed factor q < 1 of that of the round before, gain(t) = c q^t. log gain is
    then a line over t, fitted by least squares to the last WINDOW gains. The range is that of the fits that leave out
    one of them each: what the answer owes to any single round.
    """
    last = gains[-WINDOW:]
    if len(last) < LEAST_GAINS:
        return "few"
    if any(gain.per_round <= 0 for gain in last):
        return "worse"
    fits = list(_fits(last))
    if any(slope >= 0 for _, slope in fits):
        return "steady"
    at = last[-1].round + 0.5
    nexts = [exp(level + slope * at) for level, slope in fits]
    further = [one / (1 - exp(slope)) for one, (_, slope) in zip(nexts, fits, strict=True)]
    return Outlook((min(nexts), max(nexts)), (min(further), max(further)), exp(fits[0][1]))


def _fits(gains: Sequence[Gain]) -> Iterator[tuple[float, float]]:
    """Level and slope of log gain over the middle of its rounds: of all gains first, then without each of them."""
    points = [(gain.round - gain.rounds / 2, log(gain.per_round)) for gain in gains]
    yield _line(points)
    for left_out in range(len(points)):
        yield _line(points[:left_out] + points[left_out + 1 :])


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    count = len(points)
    middle, height = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    slope = sum((x - middle) * (y - height) for x, y in points) / sum((x - middle) ** 2 for x, _ in points)
    return height - slope * middle, slope
