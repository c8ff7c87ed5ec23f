"""Noise on whole numbers that are counted: the discrete Laplace mechanism, sampled exactly, from secret draws.

P(noise = z) = (e^(1/s) - 1) / (e^(1/s) + 1) * e^(-|z| / s),  s = sensitivity / epsilon
A vector of counts that one row changes by at most `sensitivity` in sum is then epsilon-differentially private.
Source: Ghosh, Roughgarden and Sundararajan (2009); the sampler: Canonne, Kamath and Steinke (2020), algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from fedloom.errors import FedLoomError

Below = Callable[[int], int]  # n -> a whole number below n, all equally likely; `secrets.randbelow` outside of tests


def noised(counts: Sequence[int], sensitivity: int, epsilon: float, below: Below) -> tuple[int, ...]:
    """The counts with noise; sums below zero stay as they are, so that the mean is right.

    sensitivity: by how much one row changes all of them together.  below: the source of randomness.
    Raises: FedLoomError for an epsilon that is not above zero, or not finite.
    """
    if not 0 < epsilon < float("inf"):
        raise FedLoomError("epsilon has to be above 0 and finite", where="noise on counts", found=epsilon)
    scale = Fraction(sensitivity) / Fraction(epsilon)
    return tuple(count + discrete_laplace(scale, below) for count in counts)


def discrete_laplace(scale: Fraction, below: Below) -> int:
    """One number of the distribution above. scale: s, above 0."""
    t, s = scale.numerator, scale.denominator
    while True:
        part = below(t)
        if not _happens(Fraction(part, t), below):
            continue
        whole = 0
        while _happens(Fraction(1), below):
            whole += 1
        size, negative = (part + t * whole) // s, below(2) == 1
        if not negative or size:
            return -size if negative else size


def _happens(gamma: Fraction, below: Below) -> bool:
    """True with probability exp(-gamma), 0 <= gamma <= 1, without a rounding anywhere."""
    step = 1
    while below(gamma.denominator * step) < gamma.numerator:
        step += 1
    return step % 2 == 1
