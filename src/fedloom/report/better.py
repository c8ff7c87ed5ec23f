"""Which of several measurements is the best, as shown: what rounds to the same text is equal."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Literal

Direction = Literal["lower", "higher"]


def best(values: Mapping[str, float | None], direction: Direction, decimals: int) -> frozenset[str]:
    """The labels of the best value; none where fewer than two were measured or where all are equal."""
    shown = {label: round(value, decimals) for label, value in values.items() if value is not None and isfinite(value)}
    if len(shown) < 2 or len(set(shown.values())) == 1:
        return frozenset()
    chosen = min(shown.values()) if direction == "lower" else max(shown.values())
    return frozenset(label for label, value in shown.items() if value == chosen)
