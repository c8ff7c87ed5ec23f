"""Masks cancel, are the key stream of ChaCha20, and hide what they cover."""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from fedloom.privacy.secagg.masks import add_mask_, to_message, to_words


def test_a_mask_that_is_added_and_subtracted_is_gone():
    words = np.arange(300_000, dtype=np.uint64)  # more than is expanded at a time
    before = words.copy()
    add_mask_(words, b"\x01" * 32, +1)
    assert (words == before).mean() < 1e-3
    add_mask_(words, b"\x01" * 32, -1)
    assert (words == before).all()


def test_a_mask_is_the_key_stream_over_its_whole_length():
    length = 300_001
    words = np.zeros(length, dtype=np.uint64)
    add_mask_(words, b"\x07" * 32, +1)
    whole = Cipher(ChaCha20(b"\x07" * 32, bytes(16)), mode=None).encryptor().update(bytes(8 * length))
    assert to_message(words) == whole


def test_every_bit_of_the_seed_counts():
    masks = []
    for bit in (0, 31, 32, 100, 255):
        words = np.zeros(4, dtype=np.uint64)
        add_mask_(words, (1 << bit).to_bytes(32, "big"), +1)
        masks.append(words.tobytes())
    assert len(set(masks)) == len(masks)


def test_words_travel_as_they_are():
    words = np.array([0, 1, 2**64 - 1], dtype=np.uint64)
    assert (to_words(to_message(words)) == words).all()
