"""The weights of the clients: unnormalised numbers, usually of examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real

from fedloom.errors import AggregationError


def checked_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights that count, as floats by sorted name; those of 0 are left out.

    Raises: AggregationError if one is negative or not finite, or if they add up to nothing.
    """
    for name, weight in weights.items():
        number = isinstance(weight, Real) and not isinstance(weight, bool)
        if not (number and math.isfinite(weight) and weight >= 0):
            raise AggregationError(
                "a weight must be a finite number that is not negative", where=f"weight of {name!r}", found=weight
            )
    counting = {name: float(weight) for name, weight in sorted(weights.items()) if weight > 0}
    if not counting:
        raise AggregationError(
            "the weights add up to nothing",
            expected="at least one weight above 0",
            found=dict(weights),
            do="Give every client that took part its number of examples",
        )
    return counting


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """p_k = w_k / sum of w. Raises: AggregationError as `checked_weights`."""
    counting = checked_weights(weights)
    whole = math.fsum(counting.values())
    return {name: weight / whole for name, weight in counting.items()}
