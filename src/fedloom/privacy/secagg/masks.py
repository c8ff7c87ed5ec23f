"""Masks: uniform words mod 2^64 from a seed of 256 bits, added, subtracted and forgotten."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

Words = NDArray[np.uint64]
WORD = np.dtype("<u8")
_AT_ONCE = 2**17  # words that are expanded at a time, so that a mask is never there as a whole
_START = bytes(16)  # counter and nonce: a seed makes one mask


def add_mask_(words: Words, seed: bytes, sign: int) -> None:
    """words + sign * PRG(seed) mod 2^64, in place; PRG is the key stream of ChaCha20 as little-endian words."""
    stream = Cipher(ChaCha20(seed, _START), mode=None).encryptor()
    for begin in range(0, len(words), _AT_ONCE):
        part = words[begin : begin + _AT_ONCE]
        mask = np.frombuffer(stream.update(bytes(8 * len(part))), dtype=WORD)
        if sign > 0:
            part += mask
        else:
            part -= mask


def to_words(data: bytes) -> Words:
    """The words of a message, to be changed by whoever reads them."""
    return np.frombuffer(data, dtype=WORD).astype(np.uint64)


def to_message(words: Words) -> bytes:
    """8 bytes for each word, little-endian."""
    return words.astype(WORD, copy=False).tobytes()
