"""Random numbers that nobody can repeat: the noise and the sampling of private training.

From ChaCha20 under a key of 256 bits from the operating system, drawn anew for each client and round; never from the
seed of the run, which the server knows.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fedloom.privacy.extra import lacking

Bytes = Callable[[int], bytes]  # count -> so many random bytes
_UNIT = 2.0**-52
_PARTS = 4  # draws that are added up for one number, see `gaussian`


class Entropy:
    """A stream of secret random numbers. source: for tests alone, what gives the bytes."""

    def __init__(self, source: Bytes | None = None) -> None:
        self._bytes = source or _chacha()

    def uniform(self, count: int) -> np.ndarray:
        """float64 in (0, 1), of 52 random bits each; with 53 the half below would be rounded, up to 1 itself."""
        bits = np.frombuffer(self._bytes(8 * count), dtype=np.uint64) >> np.uint64(12)
        return (bits.astype(np.float64) + 0.5) * _UNIT

    def gaussian(self, shape: tuple[int, ...], deviation: float) -> Tensor:
        """Normal numbers, float32. Each is the sum of four Box-Muller draws over 2: what a single one leaves in its low
        bits (Mironov, 2012) cannot be inverted from a sum (Holohan and Braghin, 2021)."""
        summed = self._normal(int(np.prod(shape, dtype=np.int64))) * deviation
        return torch.from_numpy(summed.astype(np.float32)).reshape(shape)

    def whole(self, count: int, deviation: float) -> np.ndarray:
        """Normal numbers rounded to whole ones, int64; a deviation below 2^40 leaves their last digits as random."""
        return np.rint(self._normal(count) * deviation).astype(np.int64)

    def _normal(self, count: int) -> np.ndarray:
        """float64, of deviation 1, as `gaussian` says."""
        half = (_PARTS * count + 1) // 2
        radius = np.sqrt(-2.0 * np.log(self.uniform(half)))
        angle = 2.0 * np.pi * self.uniform(half)
        # Rolled, so that no number adds up both halves of one pair, which are one draw to whoever inverts them.
        normal = np.concatenate((radius * np.cos(angle), np.roll(radius * np.sin(angle), 1)))[: _PARTS * count]
        scaled: np.ndarray = normal.reshape(_PARTS, count).sum(0) / np.sqrt(_PARTS)
        return scaled

    def sample(self, rows: int, rate: float) -> np.ndarray:
        """The positions of a Poisson sample: each of 0..rows-1 with probability `rate`, independently."""
        return np.flatnonzero(self.uniform(rows) < rate)


def _chacha() -> Bytes:
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher
        from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
    except ImportError as error:
        raise lacking("the noise of private training", error) from error
    encryptor = Cipher(ChaCha20(os.urandom(32), os.urandom(16)), mode=None).encryptor()
    return lambda count: encryptor.update(bytes(count))
