"""Everything that FedLoom refuses, and why.

FedLoomError                     the user can act on it: exit code 2, never a traceback
├── ConfigError                  pilot.toml, site.toml: one or several problems, all listed at once
├── DataError                    a client's rows: missing, empty, unreadable, without the mapped column
├── ModelError                   a base model, tokenizer or target module that cannot be used
├── AdapterError                 factors, adapters and their files
│   └── WrongBaseError           an adapter that was trained on another base model
├── AggregationError             a method was asked for something that its algebra does not allow
├── PlanError                    no plan fits a client, or what a plan is made from, or its file, cannot be used
├── KitError                     a server's or client's kit: incomplete, expired, of another kind, wrong keys
├── ContributionRefusedError     one client's contribution; the round goes on without it
└── RunError                     a run directory: exists, missing, of another configuration, disk full
    ├── NotAtHandError           something needs the base model, and this machine has none
    ├── JournalDamagedError      the hash chain of journal.jsonl is broken
    └── CheckpointDamagedError   a round's files do not have the digest that was recorded
"""

from __future__ import annotations

EXIT_CODE = 2


class FedLoomError(Exception):
    """What was wrong, where, what was expected, what was found, and what to do about it."""

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        found: object = None,
        do: str | None = None,
    ) -> None:
        self.what, self.where, self.expected, self.found, self.do = what, where, expected, found, do
        super().__init__(self._message())

    def _message(self) -> str:
        message = self.what if self.where is None else f"{self.where}: {self.what}"
        details = [
            f"{label} {value}"
            for label, value in (("expected", self.expected), ("found", self.found))
            if value is not None
        ]
        if details:
            message += f" ({', '.join(details)})"
        return message if self.do is None else f"{message}. {self.do}"


class ConfigError(FedLoomError):
    """A configuration that cannot be run. `problems` holds one line for each thing to repair."""

    def __init__(self, problems: list[str], *, where: object = None) -> None:
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "\n".join(f"  {number}. {line}" for number, line in enumerate(problems, 1))
        super().__init__(f"{count}\n{listed}", where=where)


class DataError(FedLoomError):
    """A client's rows cannot be used."""


class ModelError(FedLoomError):
    """A base model, tokenizer or target module cannot be used."""


class AdapterError(FedLoomError):
    """Factors, an adapter or an adapter file is not what it should be."""


class WrongBaseError(AdapterError):
    """An adapter belongs to another base model."""


class AggregationError(FedLoomError):
    """A method cannot combine what it was given."""


class PlanError(FedLoomError):
    """No plan can be made, or a plan or what it is made from cannot be used."""


class KitError(FedLoomError):
    """A kit of the deployment cannot be made, or cannot be used as it is."""


class ContributionRefusedError(FedLoomError):
    """One client's contribution was refused; the round goes on without it."""

    def __init__(self, client: str, what: str, *, module: str | None = None, **details) -> None:
        self.client, self.module = client, module
        where = f"client {client!r}" + ("" if module is None else f", module {module!r}")
        super().__init__(what, where=where, **details)


class RunError(FedLoomError):
    """A run directory cannot be used as asked."""


class NotAtHandError(RunError):
    """Something needs the base model, and this machine has none."""


class JournalDamagedError(RunError):
    """The hash chain of a journal is broken."""


class CheckpointDamagedError(RunError):
    """The files of a round do not have the digest that was recorded for them."""
