"""What happened in a run beside its routine, by the journal. Pure: records in, values out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedloom.report.values import Event, Similarity, SumRelease
from fedloom.rounds.budgets import BUDGET
from fedloom.rounds.standing import EXCLUDED, LATE, LATE_DROPPED, READMITTED
from fedloom.store.in_force import CONTINUED, CONTROL, MOVED_AWAY, ROLLED_BACK

Record = Mapping[str, Any]

GATE, ROBUST = "gate", "robust"
ROUTINE = frozenset(
    {
        "run_created",
        "run_started",
        "round_started",
        "contribution",
        "round_committed",
        "secure_sum",
        "evaluation",
        "answer",
        "importance",
        "run_finished",
        MOVED_AWAY,
        SumRelease.KIND,
        Similarity.KIND,
    }
)
EVENTS = frozenset(
    {
        *(
            "continued_as",
            LATE,
            LATE_DROPPED,
            "refused",
            "client_refused",
            "dropout",
            "asked_again",
            "stopped_early",
            "repaired",
            "resumed",
            "left_out",
        ),
        *(ROLLED_BACK, CONTINUED, CONTROL, EXCLUDED, READMITTED, BUDGET, "replanned", "pieces_made_anew", GATE, ROBUST),
    }
)
_NAMED = frozenset({"number", "time", "kind", "previous", "record_digest", "round", "client", "module", "reason"})


def events_of(records: Iterable[Record]) -> tuple[Event, ...]:
    """Every record that is not routine, in order, unknown kinds too."""
    return tuple(_event(str(record.get("kind")), record) for record in records if not _is_routine(record))


def _is_routine(record: Record) -> bool:
    """Also a model that the gate let pass, and a round in which nobody was dropped."""
    kind = str(record.get("kind"))
    return (
        kind in ROUTINE
        or (kind == GATE and record.get("decision") == "accepted")
        or (kind == ROBUST and not record.get("dropped"))
    )


def _event(kind: str, record: Record) -> Event:
    reasons = record.get("reasons")
    if isinstance(reasons, (list, tuple)):
        reasons = "; ".join(map(str, reasons))
    rest = {key: value for key, value in record.items() if key not in _NAMED and value is not None}
    reason = record.get("reason") or reasons
    if record.get("reason") is None:
        rest.pop("reasons", None)
    known = {field: record.get(field) for field in ("time", "round", "client", "module")}
    return Event(kind, **known, reason=None if reason is None else str(reason), details=rest)
