"""How far values lie from the middle, as outliers cannot hide it: medians in place of mean and deviation."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


def robust_z(values: Sequence[float], floor: float) -> list[float]:
    """(value - median) / max(1.4826 median |value - median|, floor). floor: what a difference is at least to count."""
    if not values:
        return []
    middle = median(values)
    scale = max(NORMAL * median(abs(value - middle) for value in values), floor)
    return [(value - middle) / scale for value in values]
