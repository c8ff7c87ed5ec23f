"""A client's privacy ledger on its own disk: a hash-chained file that only grows, and the last answer that it gave.

The order is: the answer is put away, the line is written, the answer is sent. A client that is killed in between, or
asked again, sends the same bytes again, which tells nothing new; whatever it cannot repeat is a release of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.errors import JournalDamagedError, RunError
from fedloom.privacy.accounting import Spending
from fedloom.privacy.ledger import Entry
from fedloom.store.durable import cannot_write, make_directory
from fedloom.store.journal import GENESIS, Journal, Record
from fedloom.store.unfinished import replace_file

FILE = "ledger.jsonl"
RELEASED = "released"


@dataclass(frozen=True)
class Ledger:
    """directory: of one client alone."""

    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / FILE

    def entries(self) -> list[Entry]:
        """All releases so far. Raises: JournalDamagedError for a file that was edited, naming the line."""
        if not self.path.exists():
            return []
        return [self._entry(record.fields, record.number) for record in Journal(self.path).records() if _counts(record)]

    @property
    def head(self) -> str:
        """The digest of the last line; zeros before the first. Raises: JournalDamagedError."""
        records = Journal(self.path).records()
        return records[-1].digest if records else GENESIS

    def _entry(self, fields: Mapping[str, Any], number: int) -> Entry:
        try:
            spending = Spending(fields["noise_multiplier"], fields["sampling_rate"], fields["steps"])
            return Entry(fields["round"], fields["assignment"], spending, fields["delta"])
        except KeyError as error:
            raise JournalDamagedError(
                "a line of the privacy ledger lacks a field", where=f"{self.path}, line {number}", expected=str(error)
            ) from error

    def answer_to(self, assignment: str) -> bytes | None:
        """The answer to this very assignment, if it is the last one that was made."""
        path = self._answer(assignment)
        return path.read_bytes() if path.is_file() else None

    def release(self, entry: Entry, answer: bytes, **facts: float) -> None:
        """Put an answer away and write its line; only then may it be sent. facts: more for the line.

        Raises: RunError if the disk takes one of them not; then nothing may be sent.
        """
        intact = "Nothing was sent, and the ledger is as it was"
        try:
            make_directory(self.directory)
        except OSError as error:
            raise cannot_write(error, self.path, needed_bytes=len(answer), intact=intact) from error
        replace_file(self._answer(entry.assignment), answer, intact=intact, again="resume")
        self.record(entry, **facts)
        for old in self.directory.glob("answer-*.safetensors"):
            if old != self._answer(entry.assignment):
                old.unlink(missing_ok=True)

    def record(self, entry: Entry, **facts: float) -> None:
        """Write the line of a release. Raises: RunError, JournalDamagedError."""
        spending = entry.spending
        Journal(self.path).append(
            RELEASED,
            round=entry.round,
            assignment=entry.assignment,
            noise_multiplier=spending.noise_multiplier,
            sampling_rate=spending.sampling_rate,
            steps=spending.steps,
            delta=entry.delta,
            **facts,
        )

    def require_round(self, round: int) -> None:
        """Raises: RunError if a round that counted is not in the ledger: it was lost, cut, or put back from a copy."""
        known = {entry.round for entry in self.entries()}
        if round and round not in known:
            raise RunError(
                "the privacy ledger lacks a round that this client contributed to",
                where=self.path,
                expected=f"a release in round {round}",
                found=f"rounds {sorted(known)}" if known else "no release at all",
                do="Put the client's ledger back as it was; without it nobody knows what was spent",
            )

    def _answer(self, assignment: str) -> Path:
        return self.directory / f"answer-{assignment[:32]}.safetensors"


def _counts(record: Record) -> bool:
    return record.kind == RELEASED
