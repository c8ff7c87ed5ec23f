"""Secrets of 32 bytes in shares, any `threshold` of which give the secret, and fewer nothing.

f(x) = secret + c_1 x + .. + c_(t-1) x^(t-1) mod P with c_i uniform; the share of x is f(x), and
secret = f(0) = sum_i f(x_i) prod_(j != i) x_j / (x_j - x_i).  Source: Shamir, How to share a secret, CACM 1979.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fedloom.errors import RunError
from fedloom.privacy.entropy import Bytes

SECRET_BYTES = 32
SHARE_BYTES = 33
PRIME = 2**256 + 297  # the first prime above all secrets


def split(secret: bytes, points: Sequence[int], threshold: int, entropy: Bytes) -> dict[int, bytes]:
    """A share for each point. Raises: RunError for points that are not distinct and positive, or too few of them."""
    if len(secret) != SECRET_BYTES or len(set(points)) != len(points) or any(not 0 < point < PRIME for point in points):
        raise RunError("a secret cannot be shared so", expected="32 bytes, and points that differ and are not 0")
    if not 1 <= threshold <= len(points):
        raise RunError("a secret cannot be shared so", expected=f"a threshold of 1 to {len(points)}", found=threshold)
    coefficients = [int.from_bytes(secret, "big"), *(_uniform(entropy) for _ in range(threshold - 1))]
    return {point: _value(coefficients, point).to_bytes(SHARE_BYTES, "big") for point in points}


def weights_at_zero(points: Iterable[int]) -> dict[int, int]:
    """What each point's share counts in f(0); once for all secrets that the same points give."""
    points = list(points)
    weights: dict[int, int] = {}
    for point in points:
        above = below = 1
        for other in points:
            if other != point:
                above, below = above * other % PRIME, below * (other - point) % PRIME
        weights[point] = above * pow(below, -1, PRIME) % PRIME
    return weights


def combine(shares: Mapping[int, bytes], weights: Mapping[int, int]) -> bytes | None:
    """The secret; None where these shares give none of 32 bytes, so that one of them is wrong."""
    found = sum(weight * int.from_bytes(shares[point], "big") for point, weight in weights.items()) % PRIME
    return found.to_bytes(SECRET_BYTES, "big") if found < 2 ** (8 * SECRET_BYTES) else None


def _value(coefficients: Sequence[int], point: int) -> int:
    found = 0
    for coefficient in reversed(coefficients):
        found = (found * point + coefficient) % PRIME
    return found


def _uniform(entropy: Bytes) -> int:
    """Uniform below PRIME: 16 bytes more than it has leave a bias of 2^-128."""
    return int.from_bytes(entropy(SHARE_BYTES + 16), "big") % PRIME
