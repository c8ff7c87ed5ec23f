"""Randomness comes in as an argument, derived from the run's seed by a path of names."""

from __future__ import annotations

import hashlib

import torch


def child(seed: int, *path: int | str) -> int:
    """A seed of 63 bits for one purpose: the same path gives the same seed on every machine.

    Formula: the first 8 bytes of SHA-256 over the length-prefixed parts, without the sign bit.
    """
    digest = hashlib.sha256()
    for part in (seed, *path):
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(4, "big") + text)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def generator(seed: int, *path: int | str) -> torch.Generator:
    """A CPU generator for one purpose; see `child`."""
    return torch.Generator().manual_seed(child(seed, *path))
