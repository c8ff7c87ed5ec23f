"""The numbers of a journal as trackers want them: a name, a round and a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NOT_MEASURED = {"number", "round", "examples", "rows"}
STAGES = ("base", "round", "final", "alone")


@dataclass(frozen=True)
class Point:
    """name: such as "mean/held_out/loss" (the plain mean over clients) or "site-0/train/loss".  step: the round."""

    name: str
    step: int
    value: float


def points(records: Iterable[Mapping[str, Any]]) -> list[Point]:
    """What the records say, in their order."""
    return [point for record in records for point in _of_record(record)]


def pooled(points: Iterable[Point]) -> list[Point]:
    """name without the client -> the plain mean over clients, of every step that has any."""
    values: dict[tuple[str, int], dict[str, float]] = {}
    for point in points:
        client, _, name = point.name.partition("/")
        if name:
            values.setdefault((name, point.step), {})[client] = point.value
    return [Point(f"mean/{name}", step, sum(own.values()) / len(own)) for (name, step), own in values.items()]


def _of_record(record: Mapping[str, Any]) -> Iterator[Point]:
    kind, step = record["kind"], record.get("round") or 0
    match kind:
        case "contribution":
            yield from _numbers(record, f"{record['client']}/train", step)
        case "evaluation" if record["stage"] in STAGES:
            stage = "held_out" if record["stage"] in ("base", "round") else record["stage"]
            yield from _numbers(record, f"{record['client']}/{stage}", step)
        case "round_committed":
            yield Point("round_seconds", step, float(record["seconds"]))
            yield Point("contributions", step, float(record["contributions"]))
        case "gate":
            yield Point("gate_rejected", step, float(record["decision"] == "rejected"))
            yield from _numbers(record, "gate", step)
        case _ if isinstance(record.get("epsilon"), int | float):
            yield Point("epsilon", step, float(record["epsilon"]))


def _numbers(record: Mapping[str, Any], place: str, step: int) -> Iterator[Point]:
    for name, value in record.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in NOT_MEASURED:
            yield Point(f"{place}/{name}", step, float(value))
