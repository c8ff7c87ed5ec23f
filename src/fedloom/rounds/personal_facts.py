"""What an assignment says of mixing and borrowing, as the tables that travel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, get_args, get_type_hints

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.world import Borrowing, Choosing, Mixing, Start
from fedloom.rounds.messages import Assignment

KINDS = get_args(get_type_hints(Mixing)["kind"])
WAYS = get_args(get_type_hints(Borrowing)["combine"])


def personal_facts(assignment: Assignment) -> dict[str, Any]:
    """What only methods need whose clients go on from their own. The client's mixers and memory are not here: they are
    its own."""
    if not assignment.resumes:
        return {}
    mixing, borrowing, choosing = assignment.start.mixing, assignment.start.borrowing, assignment.start.choosing
    return {
        "resumes": True,
        "mixing": None if mixing is None else asdict(mixing),
        "borrowing": None if borrowing is None else asdict(borrowing),
        **({} if choosing is None else {"choosing": asdict(choosing)}),
    }


def start_from(adapters: Mapping[str, Adapter], message: dict[str, Any]) -> Start:
    """The start of an assignment that arrived; its facts are taken out of the message.

    Raises: KeyError, TypeError, ValueError for what is none.
    """
    return Start(
        trainable=adapters["trainable"],
        trunk=adapters["trunk"],
        rest=adapters.get("rest", Adapter()),
        mixing=mixing_of(message.pop("mixing", None)),
        borrowing=borrowing_of(message.pop("borrowing", None)),
        choosing=choosing_of(message.pop("choosing", None)),
    )


def mixing_of(table: Any) -> Mixing | None:
    """None for None. Raises: ValueError, TypeError for what is no mixing."""
    if table is None:
        return None
    found = Mixing(**table)
    shares = _is_number(found.share) and 0 < found.share < 1
    rates = _is_number(found.rate) and found.rate > 0
    if (
        found.kind not in KINDS
        or not shares
        or not rates
        or not all(type(one) is bool for one in (found.trains_rest, found.whole))
    ):
        raise ValueError(f"no mixing: {table!r:.200}")
    return found


def borrowing_of(table: Any) -> Borrowing | None:
    """None for None. Raises: ValueError, TypeError for what is no borrowing."""
    if table is None:
        return None
    found = Borrowing(**table)
    tables = (found.weights, found.ranks, found.owners)
    fits = (
        type(found.round) is int
        and found.combine in WAYS
        and all(isinstance(one, Mapping) for one in tables)
        and all(_is_number(weight) and weight > 0 for weight in found.weights.values())
        and all(type(rank) is int and rank > 0 for rank in found.ranks.values())
        and all(isinstance(row, list) and all(map(_is_number, row)) for row in found.owners.values())
    )
    if not fits:
        raise ValueError(f"no borrowing: {table!r:.200}")
    return found


def choosing_of(table: Any) -> Choosing | None:
    """None for None. Raises: ValueError, TypeError for what is no choosing."""
    if table is None:
        return None
    found = Choosing(**table)
    if type(found.rows) is not int or found.rows < 1 or not (_is_number(found.decay) and 0 <= found.decay <= 1):
        raise ValueError(f"no choosing: {table!r:.200}")
    return found


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
