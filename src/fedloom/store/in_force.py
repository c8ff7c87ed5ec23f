"""Which records of a journal still hold after rounds were rolled back, or a run that was stopped went on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

COMMITTED, ROLLED_BACK, CONTINUED = "round_committed", "rolled_back", "continued"
CONTROL, MOVED_AWAY = "control", "moved_away"
OPERATOR = "operator"
# What was said of the end of a run is void once any round of it is, or it goes on after all.
OF_THE_END = frozenset({"run_finished", "stopped_early"})
STAGES_OF_THE_END = frozenset({"alone", "final"})


def in_force(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records in order, without those of rounds that a later "rolled_back" undid, and of an end that was none."""
    kept: list[Mapping[str, Any]] = []
    for record in records:
        if record.get("kind") == ROLLED_BACK:
            kept = [earlier for earlier in kept if not _undone(earlier, record["round"])]
        elif record.get("kind") == CONTINUED:
            kept = [earlier for earlier in kept if not _of_the_end(earlier)]
        kept.append(record)
    return kept


def committed(records: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """round -> digest of its files, of the rounds that were committed and not rolled back."""
    return {record["round"]: record["digest"] for record in in_force(records) if record["kind"] == COMMITTED}


def branch_of(records: Iterable[Mapping[str, Any]]) -> int:
    """How often an operator rolled the run back. records: of the whole journal."""
    return sum(record["kind"] == ROLLED_BACK and record.get("by") == OPERATOR for record in records)


def _undone(record: Mapping[str, Any], last_round: int) -> bool:
    return _of_the_end(record) or (record.get("round") or 0) > last_round


def _of_the_end(record: Mapping[str, Any]) -> bool:
    return record.get("kind") in OF_THE_END or record.get("stage") in STAGES_OF_THE_END
