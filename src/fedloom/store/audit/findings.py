"""What an audit of files says: what was checked, and what of it is not as it was written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it was written. where: file, and line or round, below the run's directory."""

    where: str
    what: str
    expected: str | None = None
    found: str | None = None

    def __str__(self) -> str:
        """In one sentence."""
        pairs = (("expected", self.expected), ("found", self.found))
        details = ", ".join(f"{name} {value}" for name, value in pairs if value is not None)
        return f"{self.where}: {self.what}" + (f" ({details})" if details else "")


def counted(number: int, noun: str) -> str:
    """Such as "1 line" and "2 lines"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True)
class Check:
    """One line of the audit's table.

    what: was checked.  against: what was recorded of it, and where.  counted: how much of it, in words.
    unchecked: why nothing could be said, where nothing could; empty otherwise.
    """

    what: str
    against: str
    counted: str
    damage: tuple[Damage, ...] = ()
    unchecked: str = ""

    @property
    def result(self) -> str:
        """In a word or two."""
        if self.damage:
            return "CHANGED"
        return "not checked" if self.unchecked else "as written"


@dataclass(frozen=True)
class FileAudit:
    """All checks of a run. head: digest of the journal's last record.  records: of the journal.

    stands: where the digest that was expected is, if one was: 0 at the head, otherwise so many records before it.
    """

    run: str
    head: str
    records: int
    checks: tuple[Check, ...]
    stands: int | None = None

    @property
    def damage(self) -> tuple[Damage, ...]:
        """All of it, in the order of the checks."""
        return tuple(one for check in self.checks for one in check.damage)
