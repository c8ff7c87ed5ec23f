"""Which records of a journal still hold after rounds were rolled back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ROLLED_BACK = "rolled_back"
# What was said of the end of a run is void once any round of it is.
OF_THE_END = frozenset({"run_finished", "stopped_early"})
STAGES_OF_THE_END = frozenset({"alone", "final"})


def in_force(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records in order, without those of rounds that a later "rolled_back" undid, and of the end they led to."""
    kept: list[Mapping[str, Any]] = []
    for record in records:
        if record["kind"] == ROLLED_BACK:
            kept = [earlier for earlier in kept if not _undone(earlier, record["round"])]
        kept.append(record)
    return kept


def _undone(record: Mapping[str, Any], last_round: int) -> bool:
    at_the_end = record["kind"] in OF_THE_END or record.get("stage") in STAGES_OF_THE_END
    return at_the_end or record.get("round", 0) > last_round
