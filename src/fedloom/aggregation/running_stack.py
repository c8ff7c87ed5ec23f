"""The sum of one module's deltas while clients come in, in whatever form is smaller."""

from __future__ import annotations

from torch import Tensor

from fedloom.adapters.algebra import stack
from fedloom.adapters.factors import Factors
from fedloom.adapters.sums import Identities, add_delta_, summed_delta


class RunningStack:
    """Factors that wait to be stacked, until the delta itself is smaller than they are and takes over.

    So it holds no more than out * in numbers and the factors that came last, however many clients there are.
    """

    def __init__(self) -> None:
        self._parts: list[Factors] = []
        self._numbers = 0
        self._delta: Tensor | None = None

    def add_(self, factors: Factors) -> None:
        """Fold one in. It is not changed; while it waits it is kept, not copied."""
        if self._delta is not None:
            add_delta_(self._delta, factors)
            return
        self._parts.append(factors)
        self._numbers += factors.parameters
        out, inputs = factors.shape
        if self._numbers > out * inputs:
            self._delta, self._parts = summed_delta(self._parts), []

    def value(self, identities: Identities) -> Factors:
        """What was added so far, as factors."""
        return stack(self._parts) if self._delta is None else identities.factors(self._delta)
