"""The lines of a hash-chained file, all of them: where `Journal` stops at the first fault, this goes on. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedloom.store.audit.findings import Damage
from fedloom.store.journal import DIGEST, GENESIS, Record, digest_of, is_as_written, parsed_line

TORN = "the last line is unfinished: a process was killed as it wrote it, or the file was cut"


@dataclass(frozen=True)
class Chain:
    """lines: of the file.  contents: of those that are JSON objects, changed or not, in order.  records: of those that
    are as their own digest says.  head: digest of the last of these."""

    lines: int
    contents: tuple[Mapping[str, Any], ...]
    records: tuple[Mapping[str, Any], ...]
    damage: tuple[Damage, ...]

    @property
    def head(self) -> str:
        return self.records[-1][DIGEST] if self.records else GENESIS


@dataclass(frozen=True)
class _Before:
    """What may be the number and the digest of the record before; no digests where they are unknown. One fault is to
    be named once, and not in all lines behind it."""

    numbers: frozenset[int] = frozenset({0})
    digests: frozenset[str] = frozenset({GENESIS})

    def after_faulty(self, digests: frozenset[str]) -> _Before:
        """Behind a line that was changed, or put in."""
        numbers = self.numbers | {number + 1 for number in self.numbers}
        return _Before(numbers, self.digests | digests if digests and self.digests else frozenset())


def chain_of(data: bytes, where: str) -> Chain:
    """Check every line: that it is a record as it was written, and that it follows the one before.

    A line is sound if record_digest = SHA-256(canonical JSON of the rest) and its bytes are those that are written of
    it; it follows if its number is the next one and previous is the digest before.
    where: the file's name, for messages.
    """
    contents, records, damage = [], [], list[Damage]()
    before = _Before()
    lines = data.splitlines(keepends=True)
    for place, line in enumerate(lines, 1):
        content, at = parsed_line(line), f"{where}, line {place}"
        if content is None or not line.endswith(b"\n"):
            damage.append(_no_record(line, at, last=place == len(lines)))
            before = before.after_faulty(frozenset())
            continue
        contents.append(content)
        if own := _own_fault(content, line, at):
            damage.append(own)
            before = before.after_faulty(frozenset({str(content.get(DIGEST)), digest_of(content)}))
            continue
        records.append(content)
        damage += _misplaced(content, before, at)
        before = _after(content, before)
    return Chain(len(lines), tuple(contents), tuple(records), tuple(damage))


def _no_record(line: bytes, at: str, *, last: bool) -> Damage:
    if last and not line.endswith(b"\n"):
        return Damage(at, TORN, "a record with a newline behind it", f"{len(line)} bytes without one")
    return Damage(at, "the line is no record", "a JSON object", f"{len(line)} bytes that are none")


def _own_fault(content: Mapping[str, Any], line: bytes, at: str) -> Damage | None:
    if not is_as_written(content):
        found = digest_of(content)
        said = _short(found) if found else "what no record holds, such as an endless number"
        return Damage(at, "the line was changed", _short(content.get(DIGEST)), said)
    if type(content.get("number")) is not int or line != Record(content).line():
        return Damage(at, "the line is not spelled as a record is written")
    return None


def _misplaced(content: Mapping[str, Any], before: _Before, at: str) -> Iterator[Damage]:
    number, due = content["number"], max(before.numbers) + 1
    if number > due:
        gone = f"record {due} is" if number == due + 1 else f"records {due} to {number - 1} are"
        yield Damage(at, f"{gone} gone before this line", f"record {due}", f"record {number}")
    elif number - 1 not in before.numbers:
        yield Damage(at, "the line is out of its place", f"record {due}", f"record {number}")
    elif before.digests and content.get("previous") not in before.digests:
        what = "the line before was replaced, or this one was put in: its link leads to another line"
        expected = " or ".join(sorted(map(_short, before.digests)))
        yield Damage(at, what, f"a link to {expected}", _short(content.get("previous")))


def _after(content: Mapping[str, Any], before: _Before) -> _Before:
    number = content["number"]
    if number <= min(before.numbers):
        return _Before(before.numbers, frozenset())
    return _Before(frozenset({number}), frozenset({content[DIGEST]}))


def _short(digest: object) -> str:
    return f"digest {str(digest)[:12]}"
