"""A run that is watched: its journal is read as it grows, its folder is only looked at."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedloom.dashboard.fold import fold_
from fedloom.dashboard.metrics import exposition
from fedloom.dashboard.shown import curve, shown, table
from fedloom.dashboard.state import View
from fedloom.errors import FedLoomError, RunError
from fedloom.spec.load import parse
from fedloom.store import requests
from fedloom.store.durable import in_use
from fedloom.store.tail import Tail

READ_SECONDS = 0.1  # of one look; what is not read then is read at the next
CHUNK_BYTES = 500_000
LOCK_SECONDS = 2.0


class Watch:
    """One run and what is known of it, for all pages that look at it."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self._tail = Tail(path / "journal.jsonl")
        self._view = View(path.name, planned_rounds(path))
        self._guard = threading.Lock()
        self._problem: str | None = None
        self._driven, self._looked = False, float("-inf")

    def look(self) -> dict[str, Any]:
        """Read on for at most about READ_SECONDS, and return what is to be shown. A damaged journal is shown as far as
        it is whole, with what is wrong."""
        with self._guard:
            self._read()
            found = shown(self._view, datetime.now(UTC))
            return found | {"file": self._file(), "asked": self._asked()}

    def unread(self) -> bool:
        """Whether the journal has more than was read of it."""
        return self._problem is None and self._tail.has_more()

    def clients(self, **page: Any) -> dict[str, Any]:
        """One page of the table of clients, as `shown.table` takes it."""
        with self._guard:
            self._read()
            return table(self._view, datetime.now(UTC), **page)

    def curve(self, client: str) -> list[list[float | None]]:
        """[round, loss] of one client."""
        with self._guard:
            self._read()
            return curve(self._view, client)

    def metrics(self) -> bytes:
        """This run for Prometheus."""
        with self._guard:
            self._read()
            return exposition([self._view])

    def _read(self) -> None:
        until = time.monotonic() + READ_SECONDS
        try:
            while self._problem is None and time.monotonic() < until:
                records = self._tail.read(CHUNK_BYTES)
                for record in records:
                    fold_(self._view, record)
                if not records:
                    return
        except FedLoomError as error:
            self._problem = str(error)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._problem = f"record {self._view.records} of the journal is not as this version writes it: {error!r}"

    def _file(self) -> dict[str, Any]:
        there = self._tail.bytes_there
        read = 1.0 if there == 0 else round(self._tail.bytes_read / there, 3)
        return {"read": read, "problem": self._problem, "driven": self._is_driven()}

    def _is_driven(self) -> bool:
        """Whether a process drives the run; asked seldom, as asking touches its lock."""
        if time.monotonic() - self._looked > LOCK_SECONDS:
            self._driven, self._looked = in_use(self.path / "run.lock"), time.monotonic()
        return self._driven

    def _asked(self) -> list[str]:
        """What waits for the end of the round, in words."""
        waiting = requests.pending(self.path)
        return [
            f"{each.action} {each.client or ''}".strip() if isinstance(each, requests.Request) else each.id
            for each in waiting
        ]


def planned_rounds(path: Path) -> int | None:
    """training.rounds of the run's configuration; None where it cannot be read."""
    file = path / "experiment.toml"
    try:
        return parse(file.read_text("utf-8"), where=str(file), folder=path, data_at_sites=True).training.rounds
    except (OSError, ValueError, FedLoomError):
        return None


class Watches:
    """The runs that may be looked at, by name: one, or all below a folder. Whatever else is named is none of them."""

    def __init__(self, path: Path, *, all_below: bool = False) -> None:
        self._path, self._all = path, all_below
        self._known: dict[str, Watch] = {}
        if not self.names():
            do = "Name a run, or with --all the folder that holds runs"
            raise RunError("there is no run to show", where=path, do=do)

    def names(self) -> list[str]:
        """Of the runs there are now."""
        found = sorted(self._path.glob("[!.]*/journal.jsonl")) if self._all else [self._path / "journal.jsonl"]
        return [file.parent.name for file in found if file.is_file()]

    def get(self, name: str) -> Watch | None:
        """The run of this name; None if there is none. No path is ever made of a name that is not one of `names`."""
        if name not in self.names():
            return None
        if name not in self._known:
            self._known[name] = Watch(self._path / name if self._all else self._path)
        return self._known[name]
