"""Chances of counts of independent tosses, and what a count says of the chance: numpy alone, no scipy."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

HALVINGS = 60  # of an interval of length 1: below the spacing of float64


def log_masses(tosses: int, log_p: float, log_q: float) -> np.ndarray:
    """log P[Binomial(tosses, p) = k] for k = 0 .. tosses. Shape: (tosses + 1,).

    log_p, log_q: logs of p and of 1 - p, given apart so that neither is lost where the other is nearly 1.
    """
    factorials = _log_factorials(tosses)
    hits = np.arange(tosses + 1)
    return factorials[-1] - factorials - factorials[::-1] + hits * log_p + (tosses - hits) * log_q


def at_least(hits: int, tosses: int, p: float) -> float:
    """P[Binomial(tosses, p) >= hits]."""
    if hits <= 0 or p >= 1:
        return 1.0
    if p <= 0:
        return 0.0
    return min(1.0, float(np.exp(log_masses(tosses, np.log(p), np.log1p(-p))[hits:]).sum()))


def lower_limit(hits: int, tosses: int, miss: float) -> float:
    """The largest p below which `hits` or more have a chance under `miss`: Clopper and Pearson (1934), one side."""
    return _border(lambda p: at_least(hits, tosses, p) < miss) if hits else 0.0


def upper_limit(hits: int, tosses: int, miss: float) -> float:
    """The same from above: the smallest p above which `hits` or fewer have a chance under `miss`."""
    return 1.0 - lower_limit(tosses - hits, tosses, miss)


def interval(hits: int, tosses: int, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a chance that showed `hits` in `tosses`.

    At least `confidence` of such intervals cover the chance. Formula: both sides miss with (1 - confidence) / 2.
    """
    miss = (1 - confidence) / 2
    return lower_limit(hits, tosses, miss), upper_limit(hits, tosses, miss)


def _border(below: Callable[[float], bool]) -> float:
    """Where a predicate on [0, 1] that holds up to some p stops to hold, from below."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low


@lru_cache(maxsize=64)
def _log_factorials(largest: int) -> np.ndarray:
    """log k! for k = 0 .. largest."""
    return np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, largest + 1)))))
