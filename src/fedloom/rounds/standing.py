"""Which clients may not take part, by what the journal says: shut out by an operator or a rule, until let in again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

EXCLUDED, READMITTED = "excluded", "readmitted"


def excluded_clients(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """client -> why it is shut out now.

    records: of the whole journal, also of rounds that were rolled back: what was decided about a client holds on.
    "excluded" has round, client, by ("operator" or the name of a rule) and reason; "readmitted" has round, client, by.
    """
    out: dict[str, str] = {}
    for record in records:
        if record["kind"] == EXCLUDED:
            out[record["client"]] = record["reason"]
        elif record["kind"] == READMITTED:
            out.pop(record["client"], None)
    return out
