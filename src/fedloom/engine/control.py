"""What an operator asked, taken: between the rounds of a run, or at once where nobody drives it.

Each request is in the journal before it takes effect, its effect names it, and its file goes last: a process that is
killed in between does nothing twice, and leaves nothing half done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from fedloom.engine.events import Stage
from fedloom.engine.loop import Loop
from fedloom.errors import FedLoomError, RunError
from fedloom.rounds.budgets import BUDGET
from fedloom.rounds.standing import EXCLUDED, READMITTED
from fedloom.store import requests
from fedloom.store.control import check, check_possible, not_in_progress, submit
from fedloom.store.durable import in_use
from fedloom.store.in_force import CONTINUED, CONTROL, OPERATOR, branch_of
from fedloom.store.requests import (
    CHANGE_BUDGET,
    CONTINUE,
    EXCLUDE,
    IN_PROGRESS,
    PAUSE,
    READMIT,
    ROLLBACK,
    STOP,
    Request,
    Unreadable,
    journaled,
    record_of,
)
from fedloom.store.rollback import roll_back
from fedloom.store.run_directory import RunDirectory

POLL_SECONDS = 0.5
STOPPED = "stopped_early"
Write = Callable[..., Any]  # (kind, **fields): one record of the journal


class Word(Enum):
    """What the run does after the requests that waited."""

    GO_ON = "go on"
    STOP = "stop"
    BACK = "go on from an earlier round"


@dataclass(frozen=True)
class _Desk:
    """Where requests are settled. round: the last one committed.  write(kind, **fields): one record of the journal."""

    directory: RunDirectory
    round: int
    write: Write
    paused: bool = False

    def records(self) -> list[Any]:
        return list(self.directory.journal.records())


def taken(loop: Loop, round: int) -> Word:
    """Take what was asked since the last round, and wait while the run is to pause. round: the last one committed.

    Raises: RunError if the disk does not take a record, or rounds cannot be moved.
    """
    desk = _Desk(loop.directory, round, loop.journal)
    while True:
        for request in requests.pending(loop.directory.path):
            done = _settled(desk, request)
            if done in _ENDS:
                return _ENDS[done]
            if done in _TOLD:
                desk = replace(desk, paused=done == PAUSE)
                loop.observe(Stage(_TOLD[done].format(round=round, run=loop.directory.path)))
        if not desk.paused:
            return Word.GO_ON
        time.sleep(POLL_SECONDS)


_ENDS = {STOP: Word.STOP, ROLLBACK: Word.BACK}
_TOLD = {
    PAUSE: "paused after round {round}: fedloom control {run} continue",
    CONTINUE: "going on after round {round}",
}


def going_on(loop: Loop) -> Loop:
    """The loop where rounds are to follow each other again: after a rollback in the branch that begins there, and of a
    run that an operator had stopped without the end that it came to."""
    stopped = [record for record in loop.records() if record["kind"] == STOPPED and record.get("by") == OPERATOR]
    if stopped and loop.directory.latest() < loop.last_round:
        loop.journal(CONTINUED, round=loop.directory.latest())
    branch = branch_of(loop.directory.journal.records())
    return replace(loop, world=replace(loop.world, branch=max(branch, loop.world.branch)))


def ask(path: Path, request: Request) -> bool:
    """Ask something of a run: of the process that drives it, or where there is none do it at once.

    Returns whether it is done already. Raises: RunError as `submit`, and where what waited from before makes it
        impossible.
    """
    check(RunDirectory.open(path), request)
    if in_use(path / "run.lock"):
        submit(path, request)
        return False
    if request.action in IN_PROGRESS:
        raise not_in_progress(path, request.action)
    with RunDirectory.open(path, to_write=True) as directory:
        requests.put(path, request)
        for each in requests.pending(path):
            latest = max(directory.committed(), default=0)
            _settled(_Desk(directory, latest, directory.journal.append), each)
        refused = (journaled(directory.journal.records(), request.id) or {}).get("refused")
        if refused is not None:
            raise RunError("what waited from before came first", where=path, found=refused)
    return True


def _settled(desk: _Desk, request: Request | Unreadable) -> str | None:
    """Take one request, and return its action; None where it was refused, or had its effect before."""
    known = journaled(desk.records(), request.id)
    if known is None:
        known = _record(desk, request)
        desk.write(CONTROL, **known)
    had = isinstance(request, Unreadable) or "refused" in known or not _takes_effect(desk, request)
    requests.remove(desk.directory.path, request.id)
    return None if had else known["action"]


def _record(desk: _Desk, request: Request | Unreadable) -> dict[str, Any]:
    """What the journal says of a request, with the reason where it is refused."""
    if isinstance(request, Unreadable):
        unknown = {"request": request.id, "action": "unknown", "by": OPERATOR}
        return {**unknown, "round": desk.round, "refused": request.why}
    refused = _refusal(desk, request)
    return {**record_of(request), "round": desk.round, **({} if refused is None else {"refused": refused})}


def _refusal(desk: _Desk, request: Request) -> str | None:
    """Why something is not done that was possible when it was asked."""
    if request.action == PAUSE and desk.paused:
        return "the run is paused already"
    if request.action == CONTINUE and not desk.paused:
        return "the run is not paused"
    if request.action == STOP and desk.round >= desk.directory.experiment().training.rounds:
        return "all rounds are done"
    try:
        check_possible(desk.directory, request)
    except FedLoomError as error:
        return str(error)
    return None


def _takes_effect(desk: _Desk, request: Request) -> bool:
    """Give a request its effect, unless it had it before; returns whether it was given now."""
    records, by = desk.records(), {"by": OPERATOR, "request": request.id}
    if any(record["kind"] != CONTROL and record.get("request") == request.id for record in records):
        return False
    reason = request.reason or "the operator asked for it"
    if request.action == ROLLBACK and request.to is not None:
        roll_back(desk.directory.path, records, request.to, desk.write, reason=reason, request=request.id)
    elif request.action == STOP:
        desk.write(STOPPED, round=desk.round, reason=reason, **by)
    elif request.action == EXCLUDE:
        desk.write(EXCLUDED, round=desk.round, client=request.client, reason=reason, **by)
    elif request.action == READMIT:
        desk.write(READMITTED, round=desk.round, client=request.client, **by)
    elif request.action == CHANGE_BUDGET:
        desk.write(BUDGET, round=desk.round, client=request.client, limits=request.limits, **by)
    return True
