"""An audit of one model: every attack on the same losses, and the epsilon that they prove together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fedloom.privacy.lower_bound import (
    CONFIDENCE,
    SHARES,
    Guesses,
    canaries_needed,
    epsilon_at_least,
    epsilon_of_rates,
    guesses_of,
    most_that_shows,
)
from fedloom.privacy.membership import Found, area, can_fit, confidences, found_at, likelihood_ratios

ROWS, GAIN, RATIO = "loss of rows", "gain of canaries", "likelihood ratio of canaries"


@dataclass(frozen=True)
class Losses:
    """Mean cross entropies of single examples, of all clients one after the other.

    members, others: of rows that were trained on, and of rows held out.  before, after: of canaries, by the base and by
    the model that is audited.  included: which canaries were trained on. Shapes: (rows,), (rows,), and (canaries,).
    """

    members: np.ndarray
    others: np.ndarray
    before: np.ndarray
    after: np.ndarray
    included: np.ndarray


@dataclass(frozen=True)
class Attack:
    """What one attack found. epsilon: the bound that it gives; proven: whether coins prove it, or it is a heuristic."""

    name: str
    members: int
    others: int
    area: float
    found: Found
    epsilon: float
    proven: bool


@dataclass(frozen=True)
class Audit:
    """All attacks, and what the canaries prove with 95% confidence.

    canaries: how many there are.  included: of them, trained on.
    epsilon_at_least: the largest bound of the attacks on canaries; they share the confidence. None without canaries.
    most: the bound if every guess had been right.  needed: how few canaries could show anything; None: no number can.
    """

    attacks: tuple[Attack, ...]
    canaries: int
    included: int
    epsilon_at_least: float | None
    most: float
    needed: int | None
    delta: float


def audit(losses: Losses, delta: float) -> Audit:
    """Every attack that the losses allow. delta: of the promise that is tested."""
    canaries = tuple(_on_canaries(losses, delta)) if len(losses.included) else ()
    trials = sum(len(_trials(name, losses)) for name in (GAIN, RATIO))
    return Audit(
        (*_on_rows(losses, delta), *canaries),
        len(losses.included),
        int(losses.included.sum()),
        max((one.epsilon for one in canaries), default=0.0) if len(losses.included) else None,
        most_that_shows(len(losses.included), trials or len(SHARES), delta),
        canaries_needed(3 * len(SHARES), delta),
        delta,
    )


def _on_rows(losses: Losses, delta: float) -> Iterator[Attack]:
    """A threshold on the loss. Rows were divided by no coin, so that what this suggests of epsilon is not proven."""
    members, others = -losses.members, -losses.others
    if len(members) and len(others):
        yield _attack(ROWS, members, others, epsilon_of_rates(members, others, delta), proven=False)


def _on_canaries(losses: Losses, delta: float) -> Iterator[Attack]:
    """Those that have canaries of both kinds to compare."""
    included = losses.included
    if included.all() or not included.any():
        return
    every = [trial for name in (GAIN, RATIO) for trial in _trials(name, losses)]
    for name in (GAIN, RATIO):
        trials = _trials(name, losses)
        if trials:
            share = (1 - CONFIDENCE) * len(trials) / len(every)
            scores = _scores(name, losses)
            epsilon = epsilon_at_least(trials, delta, 1 - share)
            yield _attack(name, scores[included], scores[~included], epsilon, proven=True)


def _scores(name: str, losses: Losses) -> np.ndarray:
    """How much surer of each canary the model became, or the ratio of likelihoods of that."""
    gains = confidences(losses.after) - confidences(losses.before)
    return gains if name == GAIN else likelihood_ratios(gains, losses.included)


def _trials(name: str, losses: Losses) -> list[Guesses]:
    """The guesses that an attack on canaries makes; none if there are too few canaries for it.

    A gain is of the model alone, and all canaries are guessed at. A ratio knows the coins of the other half: each half
    is an audit of its own, as the theorem allows a guess to know any coins but those that are guessed at.
    """
    included = losses.included
    if len(included) < 2 or (name == RATIO and not can_fit(included)):
        return []
    scores = _scores(name, losses)
    if name == GAIN:
        return guesses_of(scores, included)
    return [trial for half in (0, 1) for trial in guesses_of(scores[half::2], included[half::2])]


def _attack(name: str, members: np.ndarray, others: np.ndarray, epsilon: float, *, proven: bool) -> Attack:
    found = found_at(members, others)
    return Attack(name, len(members), len(others), area(members, others), found, epsilon, proven)
