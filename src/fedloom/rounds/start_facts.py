"""What a message says of a start besides its numbers, for methods whose clients go on from their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Borrowing, Mixing, Start
from fedloom.rounds.messages import Assignment


def facts_of(assignment: Assignment) -> dict[str, Any]:
    """What only methods need whose clients go on from their own. The client's mixers and memory are not here: they are
    its own."""
    if not assignment.resumes:
        return {}
    mixing, borrowing = assignment.start.mixing, assignment.start.borrowing
    return {
        "resumes": True,
        "mixing": None if mixing is None else asdict(mixing),
        "borrowing": None if borrowing is None else asdict(borrowing),
    }


def start_from(adapters: Mapping[str, Adapter], message: dict[str, Any]) -> Start:
    """The start of an assignment that arrived; its facts are taken out of the message.

    Raises: KeyError, TypeError, ValueError for what is none.
    """
    mixing, borrowing = message.pop("mixing", None), message.pop("borrowing", None)
    return Start(
        trainable=adapters["trainable"],
        trunk=adapters["trunk"],
        rest=adapters.get("rest", Adapter()),
        mixing=None if mixing is None else Mixing(**mixing),
        borrowing=None if borrowing is None else Borrowing(**borrowing),
    )
