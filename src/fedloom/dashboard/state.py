"""What the dashboard knows of a run: small values that `fold_` moves on record by record."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from fedloom.evaluation.scores import Scores

ALERTS_KEPT = 60


@dataclass
class ClientState:
    """One client. bytes, contributions, dropouts, refused: of all attempts, as they were spent.

    last: what it did last, "contributed", "refused" or "gone" (did not answer), and in which round.
    epsilon: largest that it reported.  anomaly: its score by the robust rules.
    """

    name: str
    rank: int | None = None
    rows: int | None = None
    contributions: int = 0
    dropouts: int = 0
    refused: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    loss: float | None = None
    epsilon: float | None = None
    anomaly: float | None = None
    last: str | None = None
    last_round: int | None = None


@dataclass
class RoundState:
    """One round. started: time of its record.  answered: client -> what became of it, in the order of arrival.

    scores: stage ("base", "round", "final") -> client -> what was measured.  row: what is shown; None: to be made anew.
    """

    number: int
    started: str | None = None
    participants: tuple[str, ...] = ()
    answered: dict[str, str] = field(default_factory=dict)
    answered_at: list[str] = field(default_factory=list)
    training_loss: dict[str, float] = field(default_factory=dict)
    scores: dict[str, dict[str, Scores]] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float | None = None
    committed: bool = False
    gate: str | None = None
    dropped: tuple[str, ...] = ()
    row: dict[str, Any] | None = None

    @property
    def measured(self) -> dict[str, Scores]:
        """client -> scores of the model after this round."""
        stages = (self.scores.get(stage) for stage in ("round", "final", "base"))
        return next((found for found in stages if found), {})


@dataclass
class View:
    """One run, by the records so far. Counts and bytes are totals; times are ISO, UTC.

    excluded: client -> why.  end: the record that ended the run.  releases: of the server's own noise, the last.
    """

    run: str
    planned_rounds: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    clients: dict[str, ClientState] = field(default_factory=dict)
    rounds: dict[int, RoundState] = field(default_factory=dict)
    excluded: dict[str, str] = field(default_factory=dict)
    alerts: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=ALERTS_KEPT))
    alert_counts: Counter[str] = field(default_factory=Counter)
    similarities: dict[int, dict[str, Any]] = field(default_factory=dict)
    release: dict[str, Any] | None = None
    end: dict[str, Any] | None = None
    peak_memory_bytes: int | None = None
    paused: bool = False
    bytes_up: int = 0
    bytes_down: int = 0
    records: int = 0
    unknown: int = 0
    last_time: str | None = None

    @property
    def latest(self) -> int:
        """The last committed round; 0 before the first."""
        return max((number for number, each in self.rounds.items() if each.committed), default=0)

    @property
    def current(self) -> RoundState | None:
        """The round that was begun and is not committed yet."""
        open_rounds = [each for each in self.rounds.values() if each.started and not each.committed]
        return None if self.end else max(open_rounds, key=lambda each: each.number, default=None)

    def client(self, name: str) -> ClientState:
        """The client of this name, from now on known."""
        return self.clients.setdefault(name, ClientState(name))

    def round(self, number: int) -> RoundState:
        """The round of this number, to be changed: its row is made anew."""
        found = self.rounds.setdefault(number, RoundState(number))
        found.row = None
        return found
