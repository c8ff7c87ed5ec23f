"""The sum of one tensor's terms while clients come in."""

from __future__ import annotations

import math

from torch import Tensor

from fedloom.adapters.threads import threads_for
from fedloom.aggregation.term import Term

MOST_WAITING = 2.0  # size of the terms that wait, as a multiple of their sum's


class RunningTerms:
    """Terms that wait until together they are twice as large as their sum, and are then added one after the other.

    A sum of many modules does not fit into the processor's cache: added to by every client as it comes, all of it would
    travel to and from memory each time. So it travels once for as many clients as make up twice its size, and no more
    than these wait.
    """

    def __init__(self) -> None:
        self._waiting: list[Term] = []
        self._share = 0.0
        self._sum: Tensor | None = None

    def add_(self, term: Term) -> None:
        """Fold one in. Its tensor is not changed; while it waits it is kept, not copied."""
        self._waiting.append(term)
        self._share += term.share
        if self._share >= MOST_WAITING:
            self._fold_()

    def _fold_(self) -> None:
        with threads_for(max((math.prod(term.shape) for term in self._waiting), default=0)):
            for term in self._waiting:
                self._sum = term.dense() if self._sum is None else term.add_to_(self._sum)
        self._waiting, self._share = [], 0.0

    def value(self) -> Tensor:
        """What was added so far. The tensor is the sum's own."""
        self._fold_()
        assert self._sum is not None, "nothing was added"
        return self._sum
