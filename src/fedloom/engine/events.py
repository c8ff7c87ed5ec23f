"""What an observer of a run is told, as it happens; the journal keeps the same facts for good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fedloom.rounds.messages import StepDone


@dataclass(frozen=True)
class RunBegins:
    """name and directory of the run; rounds in all; optimizer steps still to be taken by all clients, baselines too."""

    name: str
    directory: str
    rounds: int
    steps: int


@dataclass(frozen=True)
class Journaled:
    """A record was written to the journal."""

    kind: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class ClientBegins:
    """A client starts on an assignment ("train" or "evaluate")."""

    client: str
    kind: str
    round: int


@dataclass(frozen=True)
class Stage:
    """Something that takes a while has begun (loading the base, answering held-out rows, training a client alone)."""

    text: str


Event = RunBegins | Journaled | ClientBegins | StepDone | Stage
Observer = Callable[[Event], None]


def silent(_: Event) -> None:
    """The observer that shows nothing."""
