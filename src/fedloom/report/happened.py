"""What happened in a run beside its routine, by the journal. Pure: records in, values out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fedloom.report.values import Event, Similarity, SumRelease

Record = Mapping[str, Any]

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
        SumRelease.KIND,
        Similarity.KIND,
    }
)
EVENTS = frozenset(
    {
        *("refused", "client_refused", "dropout", "asked_again", "stopped_early", "repaired", "resumed", "left_out"),
        *("rolled_back", "replanned", "pieces_made_anew", "gate", "robust"),
    }
)
EXCLUDED = "excluded"  # of an event that is made of the field of this name in the record of a round's beginning
_NAMED = frozenset({"number", "time", "kind", "previous", "record_digest", "round", "client", "module", "reason"})


def events_of(records: Iterable[Record]) -> tuple[Event, ...]:
    """Every record that is not routine, in order, unknown kinds too, and who was shut out from when on."""
    return tuple(_events(records))


def _events(records: Iterable[Record]) -> Iterator[Event]:
    shut_out: frozenset[str] = frozenset()
    for record in records:
        kind = str(record.get("kind"))
        if kind == "round_started":
            now = frozenset(map(str, record.get(EXCLUDED) or ()))
            for client in sorted(now - shut_out):
                yield Event(EXCLUDED, record.get("time"), record.get("round"), client)
            shut_out = now
        elif kind not in ROUTINE:
            yield _event(kind, record)


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
