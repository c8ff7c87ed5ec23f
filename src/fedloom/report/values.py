"""What a report says about a run: values only, without layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isnan
from typing import Any, ClassVar

from fedloom.evaluation.scores import Scores, pooled


@dataclass(frozen=True)
class Stage:
    """One model on held-out rows: the scores of each client that measured it."""

    clients: Mapping[str, Scores] = field(default_factory=dict)

    @cached_property
    def pooled(self) -> Scores | None:
        """All measured rows together; None where nothing was measured."""
        measured = {name: scores for name, scores in self.clients.items() if scores.label_tokens}
        return pooled(measured) if measured else None

    @property
    def worst(self) -> tuple[str, Scores] | None:
        """The client with the highest loss, the first by name of equals; a loss that is not a number is the worst."""
        measured = [(name, scores) for name, scores in sorted(self.clients.items()) if scores.label_tokens]
        return max(measured, key=lambda pair: inf if isnan(pair[1].loss) else pair[1].loss, default=None)


@dataclass(frozen=True)
class ClientSummary:
    """One client over the whole run. bytes, seconds, tokens and images are totals of all its contributions.

    busy_seconds: of whole messages where the journal has them, otherwise of training: what is paid for.
    """

    name: str
    rank: int | None = None
    scaling: float | None = None
    train_rows: int | None = None
    held_out_rows: int | None = None
    dropped_rows: int | None = None
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0
    busy_seconds: float = 0.0
    tokens: int = 0
    images: int = 0
    contributions: int = 0
    refused: int = 0
    dropouts: int = 0

    @property
    def amount(self) -> int:
        """What the client learned from: tokens, or images."""
        return self.images or self.tokens

    @property
    def per_second(self) -> float | None:
        return self.amount / self.seconds if self.seconds > 0 and self.amount else None


@dataclass(frozen=True)
class RoundSummary:
    """One round. training_loss and update_norm: by client; scores: the global model after this round.

    busy_by_client, bytes_up, bytes_down: of every attempt, in seconds and bytes.
    """

    number: int
    participants: tuple[str, ...] = ()
    contributions: int | None = None
    seconds: float | None = None
    digest: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    training_loss: Mapping[str, float] = field(default_factory=dict)
    update_norm: Mapping[str, float] = field(default_factory=dict)
    scores: Stage = Stage()
    busy_by_client: Mapping[str, float] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0

    @property
    def busy_seconds(self) -> float:
        return sum(self.busy_by_client.values())


@dataclass(frozen=True)
class Event:
    """Something out of the ordinary: refused, dropout, stopped_early, .., and whatever kind is not known yet.

    reason: as the journal has it, in English.  details: all its other fields.
    """

    kind: str
    time: str | None = None
    round: int | None = None
    client: str | None = None
    module: str | None = None
    reason: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """One question and what the base and the tuned model said; None: not asked (yet).

    client: whose model answered after, where each client has its own.
    """

    question: str
    before: str | None = None
    after: str | None = None
    client: str | None = None

    @property
    def whose(self) -> str:
        return "" if self.client is None else f" of {self.client}"


def whose_models(method: str, absent: Iterable[str]) -> str:
    """What figures of a method without a global model are of. absent: clients without a model of their own (yet)."""
    without = ", ".join(absent)
    told = f"each client is measured with its own model, as {method} makes no global one"
    return f"{told}; {without} took no part: the base model" if without else told


@dataclass(frozen=True)
class Release:
    """One contribution that a client sent under noise. epsilon: of the client's whole ledger after it."""

    client: str
    round: int
    epsilon: float
    delta: float
    noise_multiplier: float
    sampling_rate: float


@dataclass(frozen=True)
class SumRelease:
    """The sum of one round, which the server released under noise of its own. epsilon: of all of them so far."""

    KIND: ClassVar[str] = "client_release"  # of its record in the journal

    round: int
    noise_multiplier: float
    max_change_norm: float
    epsilon: float
    delta: float


@dataclass(frozen=True)
class Similarity:
    """How alike the clients' own adapters were in one round, in the order of `clients`.

    cosines: between their deltas.  shares: of column m in the rest of the world of row k; rows sum to 1, or are 0.
    weights: of each in the means, as the method took them.
    """

    KIND: ClassVar[str] = "similarity"  # of its record in the journal

    round: int
    clients: tuple[str, ...]
    cosines: tuple[tuple[float, ...], ...]
    shares: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class RunSummary:
    """Everything that the tables and pages show of one run; None and empty: not in the journal.

    base, alone, federated: the base model, each client trained alone, and the global model on held-out rows.
    federated_round: the round that the federated scores belong to.  seconds: wall clock, all included.
    unknown: journal records of kinds that this version does not know, counted.
    personal: whether each client has a model of its own, which federated then means, and there is no global one.
    releases: what clients sent under noise, in order.  sums: what the server released under noise of its own.
    similarity: of clients' own adapters, of the last round that measured it.
    """

    name: str
    method: str
    task: str
    model: str
    clients: tuple[ClientSummary, ...]
    rounds: tuple[RoundSummary, ...] = ()
    planned_rounds: int = 0
    base: Stage = Stage()
    alone: Stage = Stage()
    federated: Stage = Stage()
    federated_round: int | None = None
    answers: tuple[Answer, ...] = ()
    events: tuple[Event, ...] = ()
    started: str | None = None
    finished: str | None = None
    base_digest: str | None = None
    dtype: str | None = None
    modules: int | None = None
    threads: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    digest: str | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    adapter: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)
    personal: bool = False
    releases: tuple[Release, ...] = ()
    sums: tuple[SumRelease, ...] = ()
    similarity: Similarity | None = None

    @property
    def whose_model(self) -> str | None:
        """What federated means where it is not the global model; None where it is."""
        if not self.personal:
            return None
        return "federated: " + whose_models(self.method, [one.name for one in self.clients if not one.contributions])

    @property
    def score(self) -> str:
        """The field of Scores that stands beside the loss for this task."""
        return "rouge1" if self.task == "generation" else "accuracy"

    @property
    def score_key(self) -> str:
        """What catalogues call it."""
        return f"score.{self.score}"

    @property
    def score_label(self) -> str:
        return "ROUGE-1" if self.task == "generation" else "Accuracy"

    @property
    def unit(self) -> str:
        """What the work of a client is counted in."""
        return "images" if self.task == "image-classification" else "tokens"

    @property
    def loss_per(self) -> str:
        """What the loss is a mean over."""
        return {"generation": "token", "classification": "text"}.get(self.task, "image")

    @property
    def held_out(self) -> str:
        """What the scores were measured on."""
        return "Held-out images" if self.task == "image-classification" else "Held-out text"

    @property
    def stages(self) -> dict[str, Stage]:
        """The stages that were measured, in the order of the tables."""
        stages = {"base": self.base, "alone": self.alone, "federated": self.federated}
        return {name: stage for name, stage in stages.items() if stage.clients}

    @property
    def committed_rounds(self) -> int:
        return sum(entry.digest is not None for entry in self.rounds)

    @property
    def resumed(self) -> bool:
        """Whether the run was interrupted; `seconds` then counts from the last resume."""
        return any(event.kind in ("resumed", "continued") for event in self.events)

    @property
    def round_seconds(self) -> float | None:
        """Seconds of all committed rounds: training and aggregation, without evaluation; unaffected by a resume."""
        spent = [entry.seconds for entry in self.rounds if entry.seconds is not None]
        return sum(spent) if spent else None

    @property
    def busy_seconds(self) -> float:
        """Of all clients together."""
        return sum(client.busy_seconds for client in self.clients)

    @property
    def bytes_up(self) -> int:
        return sum(client.bytes_up for client in self.clients)

    @property
    def bytes_down(self) -> int:
        return sum(client.bytes_down for client in self.clients)

    def has_score(self, stages: Iterable[Stage] | None = None) -> bool:
        """Whether the score of the task was measured at all in these stages."""
        chosen = self.stages.values() if stages is None else stages
        return any(getattr(scores, self.score) is not None for stage in chosen for scores in stage.clients.values())
