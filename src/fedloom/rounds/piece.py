"""The pieces in which a global delta travels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """One summand of a global delta that is sent in pieces. digest: SHA-256 of its bytes.  weight: its factor."""

    digest: str
    weight: float


def holding(pieces: Sequence[Piece]) -> str:
    """One digest for a sequence of pieces, by which a client says that it has them all."""
    return hashlib.sha256("\n".join(piece.digest for piece in pieces).encode()).hexdigest()
