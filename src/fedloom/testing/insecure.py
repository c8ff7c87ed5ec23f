"""Random bytes that repeat themselves, so that a test of secure sums can be repeated."""

from __future__ import annotations

import hashlib


class InsecureBytes:
    """The same seed gives the same bytes, and whoever knows the seed knows all keys.

    Formula: SHA-256(seed | number of the call | number of the block).
    """

    def __init__(self, seed: int) -> None:
        self._seed, self._calls = seed, 0

    def __call__(self, count: int) -> bytes:
        self._calls += 1
        blocks = (f"{self._seed}|{self._calls}|{number}".encode() for number in range(-(-count // 32)))
        return b"".join(hashlib.sha256(block).digest() for block in blocks)[:count]
