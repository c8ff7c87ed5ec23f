"""One record of a journal into the view of its run. No I/O; only the view is changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedloom.dashboard.state import ClientState, RoundState, View
from fedloom.evaluation.scores import measured, missing, scores_of
from fedloom.planning.infeasible import amount
from fedloom.report.happened import EVENTS, GATE, ROBUST, ROUTINE, events_of
from fedloom.report.similarity import unusable
from fedloom.report.values import Similarity, SumRelease
from fedloom.rounds.budgets import BUDGET, SITE, UNITS
from fedloom.rounds.standing import EXCLUDED, LATE, READMITTED
from fedloom.store.in_force import COMMITTED, CONTINUED, CONTROL, OF_THE_END, ROLLED_BACK
from fedloom.store.requests import CONTINUE, PAUSE, ROLLBACK, STOP

Record = Mapping[str, Any]


def fold_(view: View, record: Record) -> None:
    """Move the view on by one record. Every kind may come: one that is not known is an alert and counted.

    What was rolled back is gone from rounds, curves and the end; its traffic, dropouts and epsilon were spent and stay.
    """
    kind = str(record.get("kind"))
    view.records, view.last_time = view.records + 1, record.get("time")
    view.unknown += kind not in ROUTINE | EVENTS
    if kind in _FOLDS:
        _FOLDS[kind](view, record)
    if kind in OF_THE_END:
        view.end = dict(record)
    for event in events_of([record]):
        view.alert_counts[kind] += 1
        said = {"round": event.round, "client": event.client, "reason": _reason(record, event.reason)}
        view.alerts.append({"number": record.get("number"), "time": event.time, "kind": kind, **said})


def _reason(record: Record, reason: str | None) -> str:
    """In words, what an operator asked, what a client may use and which clients the robust rules dropped too."""
    kind = record.get("kind")
    if kind == CONTROL:
        refused = f", refused: {record['refused']}" if "refused" in record else ""
        return f"{record.get('action')} was asked{refused or (f': {reason}' if reason else '')}"
    if kind == ROBUST:
        return f"left out of the sum: {', '.join(map(str, record.get('dropped') or ()))}"
    if kind == BUDGET:
        return f"{_limits(record)}, as {'its site' if record.get('by') == SITE else 'an operator'} says"
    if kind == ROLLED_BACK:
        return f"back to round {record.get('round')}" + (f": {reason}" if reason else "")
    return reason or ""


def _limits(record: Record) -> str:
    """Such as "memory 3 GB, deadline none"."""
    limits = record.get("limits") or {}
    said = {name: "none" if value is None else amount(UNITS.get(name, ""), value) for name, value in limits.items()}
    return ", ".join(f"{name} {value}" for name, value in said.items())


def _run_started(view: View, record: Record) -> None:
    view.facts = {name: record.get(name) for name in ("name", "method", "base", "task")} | {"time": record.get("time")}
    for name, known in (record.get("clients") or {}).items():
        client = view.client(name)
        client.rank, client.rows = known.get("rank"), known.get("train_rows")


def _round_started(view: View, record: Record) -> None:
    """A round that is done again begins anew; what it has sent before was sent."""
    number, view.paused = int(record["round"]), False
    before = view.rounds.get(number, RoundState(number))
    view.rounds[number] = RoundState(
        number,
        started=record.get("time"),
        participants=tuple(record.get("participants") or ()),
        scores=before.scores,
        training_loss=before.training_loss,
        bytes_up=before.bytes_up,
        bytes_down=before.bytes_down,
    )


def _contribution(view: View, record: Record) -> None:
    client = _answer(view, record, "contributed")
    client.contributions += 1
    client.epsilon = _largest(client.epsilon, record.get("epsilon"))
    loss = measured(record, "loss")
    if loss is not None:
        view.round(int(record["round"])).training_loss[client.name] = loss
    _traffic(view, client, record)


def _answer(view: View, record: Record, what: str) -> ClientState:
    client, number = view.client(str(record["client"])), int(record.get("round") or 0)
    client.last, client.last_round = what, number
    round = view.round(number)
    if client.name not in round.answered:
        round.answered_at.append(str(record.get("time")))
    round.answered[client.name] = what
    return client


def _refused(view: View, record: Record) -> None:
    _answer(view, record, "refused").refused += 1


def _dropout(view: View, record: Record) -> None:
    """Who only did not measure may still train in this round, or has."""
    client = view.client(str(record["client"])) if record.get("stage") else _answer(view, record, "gone")
    client.dropouts += 1


def _late(view: View, record: Record) -> None:
    """Not an answer: how long those took says when others are overdue."""
    if record.get("stage"):
        return  # what it was to train in the same message is late, too
    client, number = view.client(str(record["client"])), int(record.get("round") or 0)
    client.last, client.last_round = "late", number
    view.round(number).answered.setdefault(client.name, "late")


def _evaluation(view: View, record: Record) -> None:
    client, stage, number = view.client(str(record["client"])), str(record.get("stage")), int(record.get("round") or 0)
    _traffic(view, client, record)
    if stage in ("base", "round", "final") and not missing(record):
        scores = scores_of(record)
        round = view.round(0 if stage == "base" else number)
        round.scores.setdefault(stage, {})[client.name] = scores
        client.loss = scores.loss


def _traffic(view: View, client: ClientState, record: Record) -> None:
    up, down = int(record.get("bytes_up") or 0), int(record.get("bytes_down") or 0)
    view.bytes_up, view.bytes_down = view.bytes_up + up, view.bytes_down + down
    client.bytes_up, client.bytes_down = client.bytes_up + up, client.bytes_down + down
    if record.get("kind") == "contribution" or record.get("stage") in ("round", "final"):
        round = view.round(int(record.get("round") or 0))
        round.bytes_up, round.bytes_down = round.bytes_up + up, round.bytes_down + down


def _committed(view: View, record: Record) -> None:
    round = view.round(int(record["round"]))
    round.committed, round.seconds = True, record.get("seconds")


def _gate(view: View, record: Record) -> None:
    view.round(int(record["round"])).gate = record.get("decision")


def _robust(view: View, record: Record) -> None:
    view.round(int(record["round"])).dropped = tuple(record.get("dropped") or ())
    for name, score in (record.get("scores") or {}).items():
        view.client(name).anomaly = score


def _similarity(view: View, record: Record) -> None:
    if not unusable([record]):
        view.similarities[int(record["round"])] = {name: record.get(name) for name in ("round", "clients", "shares")}


def _release(view: View, record: Record) -> None:
    view.release = {name: record.get(name) for name in ("round", "epsilon", "delta", "noise_multiplier")}


def _excluded(view: View, record: Record) -> None:
    view.excluded[str(record["client"])] = str(record.get("reason"))


def _readmitted(view: View, record: Record) -> None:
    view.excluded.pop(str(record["client"]), None)


def _control(view: View, record: Record) -> None:
    action = record.get("action")
    if "refused" not in record and action in (PAUSE, CONTINUE, STOP, ROLLBACK):
        view.paused = action == PAUSE


def _rolled_back(view: View, record: Record) -> None:
    """Rounds after the one that stays are void, and so is the end; measurements of the end of one that stays, too."""
    stays = int(record["round"])
    view.rounds = {number: each for number, each in view.rounds.items() if number <= stays}
    view.similarities = {number: each for number, each in view.similarities.items() if number <= stays}
    _void_end(view)
    for client in view.clients.values():
        client.loss = _last_loss(view, client.name)


def _void_end(view: View) -> None:
    view.end = None
    for round in view.rounds.values():
        if round.scores.pop("final", None):
            round.row = None


def _last_loss(view: View, client: str) -> float | None:
    for number in sorted(view.rounds, reverse=True):
        found = view.rounds[number].measured.get(client)
        if found is not None:
            return found.loss
    return None


def _resumed(view: View, _: Record) -> None:
    view.paused = False


def _finished(view: View, record: Record) -> None:
    view.paused, view.peak_memory_bytes = False, record.get("peak_memory_bytes")


def _largest(known: float | None, new: float | None) -> float | None:
    return known if new is None else new if known is None else max(known, new)


_FOLDS: dict[str, Callable[[View, Record], None]] = {
    "run_started": _run_started,
    "round_started": _round_started,
    "contribution": _contribution,
    "refused": _refused,
    "dropout": _dropout,
    LATE: _late,
    "evaluation": _evaluation,
    "run_finished": _finished,
    "resumed": _resumed,
    COMMITTED: _committed,
    GATE: _gate,
    ROBUST: _robust,
    Similarity.KIND: _similarity,
    SumRelease.KIND: _release,
    EXCLUDED: _excluded,
    READMITTED: _readmitted,
    CONTROL: _control,
    ROLLED_BACK: _rolled_back,
    CONTINUED: lambda view, _: _void_end(view),
}
