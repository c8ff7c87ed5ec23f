"""The record of a run: JSON lines, each carrying the digest of the one before; only ever appended to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedloom.errors import JournalDamagedError, RunError
from fedloom.store.durable import cannot_write, write_all
from fedloom.store.json_values import NOT_FINITE, canonical, json_values

GENESIS = "0" * 64
DIGEST = "record_digest"
RESERVED = frozenset({"number", "time", "kind", "previous", DIGEST, NOT_FINITE})


@dataclass(frozen=True)
class Record(Mapping[str, Any]):
    """One line: number (from 1), time (UTC, ISO, seconds), kind, its fields, previous, record_digest.

    previous is the record_digest of the line before; record_digest = SHA-256 over the canonical JSON (sorted keys,
    no spaces) of everything else.
    """

    content: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

    @property
    def number(self) -> int:
        return self.content["number"]

    @property
    def kind(self) -> str:
        return self.content["kind"]

    @property
    def digest(self) -> str:
        return self.content[DIGEST]

    @property
    def fields(self) -> dict[str, Any]:
        """What was given to `Journal.append`."""
        return {key: value for key, value in self.content.items() if key not in RESERVED}

    def line(self) -> bytes:
        """The record as it stands in the file."""
        return json.dumps(dict(self.content), ensure_ascii=False).encode() + b"\n"


class Journal:
    """The journal of one run. Reading changes nothing; the first append repairs what a killed process left behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: list[Record] = []
        self._known_bytes = 0

    def append(self, kind: str, **fields: Any) -> Record:
        """Write one record and wait until the disk has it.

        Fields are JSON values. A number that JSON does not have (nan, inf) becomes null, and the record's
        "not_finite" says under its path (such as "metrics/loss") which one it was.
        Raises: JournalDamagedError if the chain is broken; RunError if the record cannot be written.
        """
        taken = sorted(fields.keys() & RESERVED)
        if taken:
            raise ValueError(f"a field of a record cannot be called {taken[0]}")
        cut_bytes = self._refresh()
        if cut_bytes:
            self._cut()
            self._write("repaired", {"cut_bytes": cut_bytes})
        return self._write(kind, fields)

    def _cut(self) -> None:
        try:
            os.truncate(self.path, self._known_bytes)
        except OSError as error:
            raise cannot_write(error, self.path, needed_bytes=0, intact=_intact(self._known)) from error

    def records(self) -> list[Record]:
        """All records, their chain verified; a last line that a killed process left unfinished is not one of them.

        Raises: JournalDamagedError naming the line and the last round that was committed before it, or if records are
            gone that were there before.
        """
        self._size()
        self._known, self._known_bytes = [], 0
        self._refresh()
        return list(self._known)

    def _refresh(self) -> int:
        """Verify what was appended since the last look; returns the bytes of an unfinished last line."""
        lines = self._unread().splitlines(keepends=True)
        for index, line in enumerate(lines):
            record = self._verified(line)
            if record is None and index == len(lines) - 1 and _unfinished(line):
                return len(line)
            if record is None:
                raise self._damaged(line)
            self._known.append(record)
            self._known_bytes += len(line)
        return 0

    def _unread(self) -> bytes:
        if self._size() == self._known_bytes:
            return b""
        try:
            with self.path.open("rb") as file:
                file.seek(self._known_bytes)
                return file.read()
        except OSError as error:
            raise RunError("the journal cannot be read", where=self.path, found=error.strerror) from error

    def _size(self) -> int:
        """Bytes of the file. Raises: JournalDamagedError if there are fewer than were read or written before."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < self._known_bytes:
            raise JournalDamagedError(
                "records of the journal are gone",
                where=self.path,
                expected=f"at least {self._known_bytes} bytes with {len(self._known)} records",
                found=f"{size} bytes" if self.path.exists() else "no file",
                do=f"{_intact(self._known)}. Restore the journal from a copy",
            )
        return size

    def _verified(self, line: bytes) -> Record | None:
        content = parsed_line(line)
        if content is None:
            return None
        number, previous = self._position()
        record = Record(content)
        chained = content.get("number") == number and content.get("previous") == previous
        sound = chained and is_as_written(content) and line == record.line()
        return record if sound else None

    def _position(self) -> tuple[int, str]:
        """The number of the next record, and the digest before it."""
        return (self._known[-1].number + 1, self._known[-1].digest) if self._known else (1, GENESIS)

    def _write(self, kind: str, fields: Mapping[str, Any]) -> Record:
        number, previous = self._position()
        content = {"number": number, "time": datetime.now(UTC).isoformat(timespec="seconds"), "kind": kind}
        content |= json_values(fields) | {"previous": previous}
        record = Record(content | {DIGEST: digest_of(content)})
        self._write_line(record.line())
        self._known.append(record)
        self._known_bytes += len(record.line())
        return record

    def _write_line(self, line: bytes) -> None:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                write_all(descriptor, line)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            intact = _intact(self._known)
            raise cannot_write(error, self.path, needed_bytes=len(line), intact=intact) from error

    def _damaged(self, line: bytes) -> JournalDamagedError:
        number, previous = self._position()
        content = parsed_line(line)
        found = "a line that is no record" if content is None else _difference(content, number, previous)
        return JournalDamagedError(
            "the chain of the journal is broken",
            where=f"{self.path}, line {number}",
            expected=f"record {number} after {previous[:12]}..., as it was written",
            found=found,
            do=f"{_intact(self._known)}. Restore the journal from a copy; a journal cannot be repaired by hand",
        )


def parsed_line(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None where there is none."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _unfinished(line: bytes) -> bool:
    return not line.endswith(b"\n") or parsed_line(line) is None


def _difference(content: Mapping[str, Any], number: int, previous: str) -> str:
    if content.get("number") != number:
        return f"record {content.get('number')}"
    if content.get("previous") != previous:
        return "the digest of another record before it"
    return "a record that was changed"


def _intact(records: list[Record]) -> str:
    rounds = [record["round"] for record in records if record.kind == "round_committed" and "round" in record]
    return f"Round {rounds[-1]} is intact" if rounds else "No round was committed before"


def is_as_written(content: Mapping[str, Any]) -> bool:
    """Whether a record has the digest that belongs to it."""
    digest = digest_of(content)
    return digest != "" and content.get(DIGEST) == digest


def digest_of(content: Mapping[str, Any]) -> str:
    """The record_digest that belongs to a record; empty where it holds what no record holds, such as infinity."""
    rest = {key: value for key, value in content.items() if key != DIGEST}
    try:
        return hashlib.sha256(canonical(rest).encode()).hexdigest()
    except ValueError:
        return ""
