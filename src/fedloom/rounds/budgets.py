"""What clients may use, by what the journal says: limits that an operator set, and those that sites told of theirs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

BUDGET = "budget"  # a record: round, client, limits, by; of an operator's also request, whose record has the reason
SITE = "site"  # by whom, where it is no operator: the site told it of itself
LIMITS = ("memory", "deadline", "upload", "download")  # keys of a [[clients]] table: bytes, seconds, bytes, bytes
UNITS = {"memory": "memory", "deadline": "seconds", "upload": "up", "download": "down"}  # as `amount` names them
LEAST, MOST = 1e-9, 1e18  # of any limit, in its unit

Budget = dict[str, float | None]


def budgets(records: Iterable[Mapping[str, Any]], by: str) -> dict[str, Budget]:
    """client -> limit -> what `by` said last; None: that there is none any more.

    records: of the whole journal, also of rounds that were rolled back: a machine stays as small as it was said to be.
    """
    found: dict[str, Budget] = {}
    for record in records:
        if record["kind"] == BUDGET and record["by"] == by:
            found.setdefault(record["client"], {}).update(record["limits"])
    return found


def is_amount(value: object) -> bool:
    """Whether this is what a limit can be: a number of seconds or bytes that costs can be compared and divided with.
    JSON has integers that are larger than any float, and clients say what they like."""
    return type(value) in (int, float) and LEAST <= value <= MOST  # type: ignore[operator]
