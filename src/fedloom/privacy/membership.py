"""Membership inference: scores that say "this row was trained on", and how often they are right.

A score is larger where a row looks more like one that was trained on. Two attacks: the loss itself (Yeom et al., 2018,
"Privacy risk in machine learning", section 3.2: a threshold on the loss), and a ratio of likelihoods (Carlini et al.,
2022, "Membership inference attacks from first principles"). What is reported is what the latter ask for: how many
members are found while one in a hundred of the others is accused wrongly; the area under the curve hardly tells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fedloom.privacy.binomial import interval

FALSE_POSITIVES = 0.01
CONFIDENCE = 0.95
LEAST_LOSS = 1e-7  # of float32: below it a loss is 0
LEAST_OF_A_FOLD = 2  # members, and others, to fit a normal distribution to


@dataclass(frozen=True)
class Found:
    """How many members are found at a given share of false positives. low, high: 95% interval of `share`."""

    hits: int
    members: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.hits / self.members


def confidences(losses: np.ndarray) -> np.ndarray:
    """log p / (1 - p) of the right answer, p = exp(-loss): nearly normal where the loss is not (Carlini et al., VI.A).

    losses: mean cross entropy of each example, shape (n,); for a text p is the geometric mean over its tokens.
    """
    bounded = np.maximum(np.asarray(losses, dtype=np.float64), LEAST_LOSS)
    return -bounded - np.log(-np.expm1(-bounded))


def area(members: np.ndarray, others: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a member scores above another, equal scores counting half."""
    values = np.concatenate((members, others))
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    above = ranks[: len(members)].sum() - len(members) * (len(members) + 1) / 2
    return float(above / (len(members) * len(others)))


def found_at(members: np.ndarray, others: np.ndarray, false_positives: float = FALSE_POSITIVES) -> Found:
    """Members above the lowest threshold that at most this share of the others exceeds: with fewer than 100 others and
    one in a hundred, none of them may.

    The interval takes the threshold as given; it is the quantile of these same others.
    """
    allowed = math.floor(false_positives * len(others) + 1e-9)
    threshold = -np.inf if allowed >= len(others) else np.sort(others)[::-1][allowed]
    hits = int((members > threshold).sum())
    return Found(hits, len(members), *interval(hits, len(members), CONFIDENCE))


def can_fit(included: np.ndarray) -> bool:
    """Whether each half has enough canaries of both kinds for `likelihood_ratios`."""
    halves = (included[half::2] for half in (0, 1))
    return all(min(half.sum(), (~half).sum()) >= LEAST_OF_A_FOLD for half in halves)


def likelihood_ratios(values: np.ndarray, included: np.ndarray) -> np.ndarray:
    """log N(v; mean_in, std_in) - log N(v; mean_out, std_out) of each canary. Shapes: all (canaries,).

    The online attack of Carlini et al. (their algorithm 1) with one normal distribution for all canaries that are in
    and one for all that are out, in place of two for each canary from many models trained anew: one run leaves one
    model. The two are fitted to the canaries of the other half (even and odd places), so that none is scored by
    itself. What many models would tell of a single canary, its own difficulty, `values` must have subtracted: those
    of the tuned model less those of the base.
    included: whether each was trained on; `can_fit` must hold.
    """
    spread = max(float(values.std()), 1e-12)
    scores = np.empty(len(values))
    for half in (0, 1):
        others, inside = values[1 - half :: 2], included[1 - half :: 2]
        scores[half::2] = _log_density(values[half::2], others[inside], spread) - _log_density(
            values[half::2], others[~inside], spread
        )
    return scores


def _log_density(at: np.ndarray, sample: np.ndarray, spread: float) -> np.ndarray:
    """Of the normal distribution fitted to a sample; never narrower than a thousandth of the whole spread."""
    std = max(float(sample.std(ddof=1)), 1e-3 * spread)
    return -0.5 * ((at - sample.mean()) / std) ** 2 - math.log(std)
