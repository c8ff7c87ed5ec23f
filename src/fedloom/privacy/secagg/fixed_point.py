"""Real numbers as whole ones mod 2^64, so that sums are exact, masks hide everything, and nothing can overflow.

    word = round(value * 2^bits) mod 2^64,    bits = 62 - ceil(log2(clients * largest))

With |value| <= largest for each of so many clients, their sum is at most 2^62 + clients / 2 < 2^63 in size: the words
of the sum, read as signed, are the sum. Each client's rounding moves it by at most 2^-(bits + 1). Where `digits` are
asked for, bits are those and no more, if there is room for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom.errors import ContributionRefusedError, RunError
from fedloom.privacy.secagg.masks import Words

MOST_CLIENTS = 2**20


@dataclass(frozen=True)
class FixedPoint:
    """largest: bound on the size of every number of a client.  clients: how many add up at most.

    digits: binary digits behind the point; None: as many as there is room for.
    """

    largest: float
    clients: int
    digits: int | None = None

    def __post_init__(self) -> None:
        possible = math.isfinite(self.clients * self.largest) and self.largest > 0
        if not (possible and 0 < self.clients <= MOST_CLIENTS):
            raise RunError(
                "there is no fixed point for such numbers",
                expected=f"a bound above 0, and 1 to {MOST_CLIENTS} clients",
                found=f"bound {self.largest:g}, {self.clients} clients",
            )

        if self.digits is not None and self.digits > self._room:
            raise RunError(
                "64 bits have no room for numbers so large, and so fine",
                where="the fixed point of a secure sum",
                expected=f"at most {self._room} binary digits behind the point",
                found=self.digits,
                do="Lower rounds.max_update_norm, or raise privacy.max_change_norm or the noise",
            )

    @property
    def _room(self) -> int:
        return 62 - math.frexp(self.clients * self.largest)[1]

    @property
    def bits(self) -> int:
        """Binary digits behind the point; negative for a very large bound."""
        return self._room if self.digits is None else self.digits

    def encode(self, values: NDArray[np.float64], client: str) -> Words:
        """The words of one client. Raises: ContributionRefusedError for a number beyond the bound, or none at all."""
        self._require_within(float(np.abs(values).max(initial=0.0)), client)
        return np.rint(np.ldexp(values, self.bits)).astype(np.int64).view(np.uint64)

    def words(self, steps: NDArray[np.int64], client: str) -> Words:
        """The words of numbers that are whole steps of 2^-bits already. Raises: ContributionRefusedError, likewise."""
        largest = max(abs(int(steps.max(initial=0))), abs(int(steps.min(initial=0))))
        self._require_within(math.ldexp(largest, -self.bits), client)
        return steps.view(np.uint64)

    def _require_within(self, worst: float, client: str) -> None:
        if not worst <= self.largest:
            raise ContributionRefusedError(
                client,
                "a number is beyond the bound of secure aggregation, whose sums would overflow",
                expected=f"at most {self.largest:g} in size",
                found=f"{worst:g}",
                do="Choose a smaller learning rate, or a larger bound",
            )

    def decode(self, words: Words) -> NDArray[np.float64]:
        """The sum."""
        return np.ldexp(words.view(np.int64).astype(np.float64), -self.bits)
