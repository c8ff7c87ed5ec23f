"""Noise that clients add to their parts of a secure sum: together at least as much as is promised. Pure.

    word_k = start_k + change_k + rint(N(0, s^2))     change_k clipped to C, all in whole steps of a grid
    s = z C / sqrt(h)                                 h = threshold - colluding, the fewest honest clients of a sum

The sum over any n of them that the protocol opens has at least h shares that nobody else knows: noise of deviation
at least z C, on numbers that one client moves by at most C. With all n honest it is sqrt(n / h) times that.

The grid. A step is g = 2^-digits, at most s / 2^16 and so small that rounding moves a change by at most C / 1000: each
of d numbers moves by at most g / 2, their norm by sqrt(d) g / 2. A change is clipped to C less that, so that its norm
is at most C in whole steps. Noise is rounded by itself. A sum of h rounded normal numbers is distributed as
rint(normal number of variance h s^2 + h - 1 uniform ones), up to aliasing of size exp(-2 pi^2 (s / g)^2), which is
below any number there is: what is done to the sum of the noise after it was added spends nothing. The grid is far
coarser than the draws, so that no low digits of a change are left without noise.

Where the bound follows what clients send (`adaptive_bound`), each client adds 1 to a count if its change kept C, and
noise of deviation sigma_b / sqrt(h); z above is then sigma_s, a little more than what both together are worth.

A number of the noise is beyond TAILS s with a chance of 2e-23; a client that draws one refuses to send it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedloom.errors import RunError
from fedloom.privacy.accounting import Accountant, Spending
from fedloom.privacy.adaptive_bound import beside_a_count

TAILS = 10.0
FINENESS = 2.0**16  # steps of the grid in one deviation, at least
ROUNDED = 1e-3  # of the bound, which rounding may take at most
_SLACK = 1e-9  # of float64 sums, against the norm of whole numbers

Reals = NDArray[np.float64]
Steps = NDArray[np.int64]


@dataclass(frozen=True)
class NoiseShare:
    """What every client of a secure sum is to hold.

    bound: C.  noise_multiplier: what the promise counts with.  colluding: clients whose noise the server may know.
    epsilon: of the whole run; None: noise_multiplier was given.  delta, accountant: how it is counted.
    counting: sigma_b, of the count of those who keep the bound; 0: nobody counts them.
    Raises: RunError for numbers that promise nothing.
    """

    bound: float
    noise_multiplier: float
    colluding: int
    epsilon: float | None
    delta: float
    accountant: Accountant
    counting: float = 0.0

    def __post_init__(self) -> None:
        sizes = self.bound, self.noise_multiplier
        sound = all(math.isfinite(size) and size > 0 for size in sizes) and self.colluding >= 0 and 0 < self.delta < 1
        if not sound or not (self.counting == 0 or self.noise_multiplier <= self.counting < math.inf):
            raise RunError(
                "this is no share of a noise",
                expected="a bound and a noise multiplier above 0, colluding clients from 0, a delta within 0 and 1, "
                "and for a count no less noise than for the sum",
                found=self,
            )

    @property
    def round(self) -> Spending:
        """What one opened sum spends: one look at every client."""
        return Spending(self.noise_multiplier, 1.0, 1)

    def honest(self, threshold: int, clients: int) -> int:
        """h. Raises: RunError for a threshold that lets through two sums of one round, or none that is protected."""
        if 2 * threshold <= clients + self.colluding or threshold > clients:
            raise RunError(
                "with so many colluding clients a secure sum of this threshold promises nothing",
                where=f"{clients} clients, {self.colluding} of them colluding",
                expected=f"a threshold from {(clients + self.colluding) // 2 + 1} to {clients}",
                found=threshold,
                do="Raise secure_aggregation.threshold, let more clients take part, or lower privacy.colluding",
            )
        return threshold - self.colluding

    def deviation(self, threshold: int, clients: int) -> float:
        """s = z C / sqrt(h). Raises: RunError, as `honest`."""
        multiplier = beside_a_count(self.noise_multiplier, self.counting)
        return multiplier * self.bound / math.sqrt(self.honest(threshold, clients))

    def count_deviation(self, threshold: int, clients: int) -> float:
        """sigma_b / sqrt(h). Raises: RunError, as `honest`."""
        return self.counting / math.sqrt(self.honest(threshold, clients))

    def digits(self, deviation: float, numbers: int) -> int:
        """Binary digits of the grid for so many noisy numbers. Never negative, so that counts stay whole.

        deviation: the least of any noise on it.
        """
        step = min(deviation / FINENESS, 2 * ROUNDED * self.bound / math.sqrt(max(1, numbers)))
        return max(0, math.ceil(-math.log2(step)))


def clipped_steps(change: Reals, bound: float, digits: int) -> Steps:
    """The change in whole steps of 2^-digits: of norm at most bound * 2^digits.

    Raises: RunError where rounding alone would take a thousandth of the bound.
    """
    lost = math.sqrt(change.size) * math.ldexp(0.5, -digits)
    if lost > ROUNDED * bound:
        raise RunError(
            "the grid of the secure sum is too coarse for the bound of a client's change",
            where="privacy.max_change_norm",
            expected=f"rounding of at most {ROUNDED * bound:g}",
            found=f"{lost:g}",
        )
    within, norm = (bound - lost) * (1 - _SLACK), float(np.linalg.norm(change))
    scaled = change if norm <= within else change * (within / norm)
    return np.rint(np.ldexp(scaled, digits)).astype(np.int64)


def keeps(change: Reals, bound: float) -> bool:
    """Whether the change counts as one of those that did not need to be clipped."""
    return float(np.linalg.norm(change)) <= bound
