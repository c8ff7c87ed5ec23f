"""Going back to an earlier round: the journal says so first, then what came after is moved away; nothing is deleted.

Killed in between, the run has gone back already: whoever next takes its lock moves the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedloom.store.durable import cannot_write, make_directory, publish, sync_directory
from fedloom.store.in_force import MOVED_AWAY, OPERATOR, ROLLED_BACK, branch_of, committed
from fedloom.store.journal import Journal

FOLDER = "rolled-back"
# Made of the last round, and taken for the result of the run if they stayed.
OF_THE_LAST_ROUND = ("adapter", "report.html", "audit.json", "explain")


def roll_back(
    run: Path,
    records: Sequence[Mapping[str, Any]],
    to: int,
    write: Callable[..., Any],
    **facts: Any,
) -> int:
    """Go back to the state after round `to`; returns the branch that begins there, counted from 1.

    records: of the whole journal.  write(kind, **fields): writes a record.  facts: more for the record.
    Raises: RunError if something cannot be moved; the run has gone back all the same, and the next one to take its
        lock moves what is left.
    """
    branch = branch_of(records) + 1
    lost = sorted(round for round in committed(records) if round > to)
    moved = f"{FOLDER}/{branch}"
    write(ROLLED_BACK, round=to, lost=lost, by=OPERATOR, branch=branch, moved=moved, **facts)
    write(MOVED_AWAY, branch=branch, names=_move(run, moved, lost))
    return branch


def finish(run: Path, journal: Journal) -> None:
    """Move what a process that was killed did not come to. For the holder of the lock; raises as `roll_back`."""
    record = _unfinished(journal.records())
    if record is not None:
        names = _move(run, record["moved"], record["lost"])
        journal.append(MOVED_AWAY, branch=record["branch"], names=names)


def leaving(records: Iterable[Mapping[str, Any]]) -> frozenset[int]:
    """Rounds that were rolled back and whose folders may still be where they were."""
    record = _unfinished(records)
    return frozenset(() if record is None else record["lost"])


def _unfinished(records: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """An operator's rollback that no record says the end of."""
    begun: Mapping[str, Any] | None = None
    for record in records:
        if record["kind"] == ROLLED_BACK and record.get("by") == OPERATOR:
            begun = record
        elif record["kind"] == MOVED_AWAY:
            begun = None
    return begun


def _move(run: Path, moved: str, lost: Iterable[int]) -> list[str]:
    """Move the rounds, and what was made of the last one; returns the names of all that is there then."""
    place = run / moved
    names = [f"{round:04d}" for round in lost]
    sources = {**{name: run / "rounds" / name for name in names}, **{name: run / name for name in OF_THE_LAST_ROUND}}
    try:
        make_directory(place)
        for name, source in sources.items():
            if source.exists() and not (place / name).exists():
                publish(source, place / name)
        for folder in (run / "rounds", run):
            sync_directory(folder)
        return sorted(entry.name for entry in place.iterdir())
    except OSError as error:
        intact = "The run has gone back; nothing is lost"
        raise cannot_write(error, place, needed_bytes=0, intact=intact) from error
