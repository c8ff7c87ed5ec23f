"""What an operator asks of a run: one file each in the run's folder `control`, until it is taken."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fedloom.errors import RunError
from fedloom.rounds.budgets import LEAST, LIMITS, MOST, Budget, is_amount
from fedloom.store.durable import NOTHING_CHANGED, cannot_write, make_directory, sync_directory, write_file
from fedloom.store.in_force import CONTROL, OPERATOR
from fedloom.store.journal import Journal
from fedloom.store.unfinished import unfinished_name

FOLDER = "control"
PAUSE, CONTINUE, STOP, ROLLBACK, EXCLUDE, READMIT = "pause", "continue", "stop", "rollback", "exclude", "readmit"
CHANGE_BUDGET = "budget"
ACTIONS = (PAUSE, CONTINUE, STOP, ROLLBACK, EXCLUDE, READMIT, CHANGE_BUDGET)
IN_PROGRESS = frozenset({PAUSE, CONTINUE, STOP})  # what only a run in progress can do
LONGEST_REASON = 500  # characters
LONGEST_FILE = 16_384  # bytes
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Request:
    """What is asked of a run.

    id: of this one wish; asked again it is the same wish.  action: one of ACTIONS.
    seen: the last committed round that the asker knew of; None: it does not matter.  to: round to go back to.
    client, reason: of exclude, readmit and budget; a reason may be given for every action.
    limits: of budget: what the client may use from now on, by the names of `budgets.LIMITS`; None: no limit of its own.
    """

    id: str
    action: str
    seen: int | None = None
    to: int | None = None
    client: str | None = None
    reason: str | None = None
    limits: Budget | None = None

    def __post_init__(self) -> None:
        """Raises: RunError for a value of another kind than the field takes."""
        if not isinstance(self.id, str) or not _ID.fullmatch(self.id):
            expected = "at most 64 letters, digits, dots, dashes and underscores, the first a letter or digit"
            raise RunError("not the id of a request", expected=expected, found=repr(self.id))
        if self.action not in ACTIONS:
            raise RunError("no such action", expected=f"one of {', '.join(ACTIONS)}", found=repr(self.action))
        for name, kind in (("seen", int), ("to", int), ("client", str), ("reason", str), ("limits", dict)):
            value = getattr(self, name)
            if value is not None and type(value) is not kind:
                raise RunError(f"not the {name} of a request", expected=kind.__name__, found=repr(value))
        if self.reason is not None and len(self.reason) > LONGEST_REASON:
            found = f"{len(self.reason)} characters"
            raise RunError("the reason is too long", expected=f"at most {LONGEST_REASON} characters", found=found)
        _check_characters(self.reason or "")
        _check_limits(self.limits or {})

    @property
    def details(self) -> dict[str, Any]:
        """For the journal: what was asked, but for the id and the action."""
        given = {name: getattr(self, name) for name in ("to", "client", "reason", "limits")}
        return {name: value for name, value in given.items() if value is not None}


def _check_characters(reason: str) -> None:
    """A terminal hands on bytes that are not UTF-8 as lone surrogates, and JSON has escapes for them."""
    try:
        reason.encode()
    except UnicodeEncodeError as error:
        found = f"{reason[error.start]!r} as character {error.start + 1}"
        raise RunError("the reason is no text", expected="whole characters, in UTF-8", found=found) from None


def _check_limits(limits: Mapping[str, Any]) -> None:
    for name, value in limits.items():
        if name not in LIMITS:
            raise RunError("no such limit", expected=f"one of {', '.join(LIMITS)}", found=repr(name)[:80])
        if value is not None and not is_amount(value):
            expected = f"a number of {'seconds' if name == 'deadline' else 'bytes'} from {LEAST:g} to {MOST:g}, or none"
            raise RunError(f"not a limit of {name}", expected=expected, found=repr(value)[:80])


@dataclass(frozen=True)
class Unreadable:
    """A file that is no request. id: its name."""

    id: str
    why: str


def put(run: Path, request: Request) -> None:
    """Leave a request, there completely or not at all. Raises: RunError if one of this id waits already."""
    path, place = _path(run, request.id), run / FOLDER
    unfinished = unfinished_name(path)
    data = json.dumps({**asdict(request), "asked": time.time_ns()}).encode() + b"\n"
    try:
        make_directory(place)
        write_file(unfinished, data)
        os.link(unfinished, path)  # unlike a rename, it never replaces one of the same id
        sync_directory(place)
    except FileExistsError:
        raise asked_before(run, request.id) from None
    except OSError as error:
        raise cannot_write(error, path, needed_bytes=len(data), intact=NOTHING_CHANGED, again="ask again") from error
    finally:
        unfinished.unlink(missing_ok=True)


def asked_before(run: Path, id: str) -> RunError:
    """What to say of an id that was used."""
    do = "Nothing is done twice; ask for something else under another id"
    return RunError("this was asked before", where=run, found=f"request {id!r}", do=do)


def pending(run: Path) -> list[Request | Unreadable]:
    """What was asked and not taken yet, in the order in which it was asked. A run that was never asked has none."""
    try:
        names = sorted(entry.name for entry in (run / FOLDER).iterdir() if entry.is_file())
    except OSError:
        return []
    found = [_read(run / FOLDER / name) for name in names if name.endswith(".json") and not name.startswith(".")]
    return [request for _, request in sorted(found, key=lambda pair: pair[0])]


def remove(run: Path, id: str) -> None:
    """Forget a request that was taken. Raises: RunError if its file cannot be removed."""
    path = _path(run, id)
    try:
        path.unlink()
        sync_directory(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise cannot_write(error, path, needed_bytes=0, intact="What was asked is in the journal") from error


def journaled(records: Iterable[Mapping[str, Any]], id: str) -> Mapping[str, Any] | None:
    """The record of a request that was taken."""
    return next((record for record in records if record["kind"] == CONTROL and record["request"] == id), None)


def withdraw(run: Path, journal: Journal) -> None:
    """Void what was asked of a process that is no more: a run that is resumed is to go on. For the lock's holder."""
    for request in pending(run):
        if isinstance(request, Request) and request.action in IN_PROGRESS:
            if journaled(journal.records(), request.id) is None:
                refused = "the run was not in progress any more"
                journal.append(CONTROL, **record_of(request), refused=refused)
            remove(run, request.id)


def record_of(request: Request) -> dict[str, Any]:
    """The fields of the journal's record of a request."""
    return {"request": request.id, "action": request.action, "by": OPERATOR, **request.details}


def _read(path: Path) -> tuple[int, Request | Unreadable]:
    """When it was asked, and the request."""
    try:
        table = _table(path)
        given: dict[str, Any] = {field.name: table.get(field.name) for field in fields(Request)}
        request = Request(**given)
        if request.id != path.stem:
            raise RunError("the file has another name than its request", found=request.id)
        return int(table.get("asked") or 0), request
    except (OSError, ValueError, TypeError, RecursionError, RunError) as error:
        return 0, Unreadable(path.stem, str(error))


def _table(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(LONGEST_FILE + 1)
    if len(data) > LONGEST_FILE:
        raise ValueError(f"more than {LONGEST_FILE} bytes")
    table = json.loads(data)
    if not isinstance(table, dict):
        raise TypeError("no table")
    return table


def _path(run: Path, id: str) -> Path:
    return run / FOLDER / f"{id}.json"
