"""A journal followed while another process writes it: only what is new is read, verified, and nothing is kept."""

from __future__ import annotations

from pathlib import Path

from fedloom.errors import JournalDamagedError, RunError
from fedloom.store.journal import GENESIS, Record, is_as_written, parsed_line


class Tail:
    """The place in a journal up to which it was read. bytes_read, records_read: so far; bytes_there: at the last look.

    Unlike `Journal` it holds one digest and no records: a journal of a million lines costs nothing but its reading.
    It takes no lock and writes nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_read, self.bytes_there, self.records_read = 0, 0, 0
        self._previous = GENESIS

    def read(self, most_bytes: int) -> list[Record]:
        """The next records, of about most_bytes, their chain verified. A last line without its end is left for later.

        Raises: JournalDamagedError naming the first line that is not as it was written, or if what was read is gone.
        """
        found: list[Record] = []
        for line in self._lines(most_bytes):
            content = parsed_line(line)
            record = None if content is None else self._verified(Record(content), line)
            if record is None and found:
                break  # what is whole first: the next call begins with this line
            if record is None and self._is_unfinished(line, content is None):
                break
            if record is None:
                raise self._damaged("a line that is no record" if content is None else "a record that was changed")
            found.append(record)
            self._previous, self.records_read = record.digest, record.number
            self.bytes_read += len(line)
        return found

    def has_more(self) -> bool:
        """Whether the file is longer than what was read; costs no reading."""
        try:
            return self.path.stat().st_size != self.bytes_read
        except OSError:
            return True

    def _is_unfinished(self, line: bytes, unparsed: bool) -> bool:
        """Whether this is a last line that is being written, or was when its process was killed; the next one to write
        cuts it."""
        last = self.bytes_read + len(line) >= self.bytes_there
        return not line.endswith(b"\n") or (unparsed and last)

    def _lines(self, most_bytes: int) -> list[bytes]:
        try:
            self.bytes_there = self.path.stat().st_size
            if self.bytes_there < self.bytes_read:
                raise self._damaged(f"{self.bytes_there} bytes, of which {self.bytes_read} were read before")
            with self.path.open("rb") as file:
                file.seek(self.bytes_read)
                return file.readlines(most_bytes) if self.bytes_there > self.bytes_read else []
        except OSError as error:
            raise RunError("the journal cannot be read", where=self.path, found=error.strerror) from error

    def _verified(self, record: Record, line: bytes) -> Record | None:
        content = record.content
        chained = content.get("number") == self.records_read + 1 and content.get("previous") == self._previous
        return record if chained and is_as_written(content) and line == record.line() else None

    def _damaged(self, found: str) -> JournalDamagedError:
        return JournalDamagedError(
            "the chain of the journal is broken",
            where=f"{self.path}, line {self.records_read + 1}",
            expected=f"a record after {self._previous[:12]}..., as it was written",
            found=found,
            do="What is shown stops before it. Restore the journal from a copy",
        )
