"""The client half of a trunk in pieces: keep what came, and form the trunk of what is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fedloom.errors import FedLoomError
from fedloom.rounds.messages import Assignment, Contribution
from fedloom.rounds.piece import holding
from fedloom.rounds.trunk import formed
from fedloom.store.piece_store import PieceStore

PLACE = ".trunk"  # below the place of the clients: the pieces are those of the server, alike for all


class LackingError(FedLoomError):
    """The server believes that this client has a piece of the trunk that it has not; it is to send all of them."""


def with_trunk(assignment: Assignment, root: Path | None) -> Assignment:
    """The assignment with its trunk, after what came with it was kept and what no piece needs any more was removed.

    root: as of `ClientHalf.store`; None: nothing is kept, and everything has to come with every assignment.
    Raises: LackingError for a piece that is neither here nor came; AdapterError for pieces that do not fit.
    """
    if not assignment.pieces:
        return assignment
    store = None if root is None else PieceStore(root / PLACE)
    if store is not None:
        for data in assignment.blobs.values():
            store.put(data)
        store.keep_only({piece.digest for piece in assignment.pieces})
    return formed(assignment, _bytes_of(assignment, store))


def confirmed(assignment: Assignment, answer: Contribution, root: Path | None) -> Contribution:
    """The answer with what is on this client's disk now."""
    kept = bool(assignment.pieces) and root is not None
    return replace(answer, holds=holding(assignment.pieces)) if kept else answer


def _bytes_of(assignment: Assignment, store: PieceStore | None) -> Iterator[bytes]:
    for piece in assignment.pieces:
        data = assignment.blobs.get(piece.digest)
        if data is None and store is not None:
            data = store.get(piece.digest)
        if data is None:
            raise LackingError(
                "a piece of the trunk is not here",
                where=f"client {assignment.client!r}, round {assignment.round}",
                expected=f"digest {piece.digest[:12]}",
                found="no such file, or a damaged one",
                do="Nothing: the server sends all pieces again",
            )
        yield data
