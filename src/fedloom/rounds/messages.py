"""What server and client say to each other: values only, so that any transport can carry them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.local_rules import Penalty
from fedloom.aggregation.world import Start

WORK_UNITS = ("tokens", "images")  # what the work of a client is counted in: metrics `tokens`, `tokens_per_second`, ..


@dataclass(frozen=True)
class LocalWork:
    """The work of one client in one round.

    first_step: optimizer steps of the run before this round, for the schedule.  total_steps: of the whole run.
    batch_size in rows; max_tokens per row; rates are peaks; warmup is a share of total_steps.
    penalties: added to the loss.  prune: share of a rank that stays if its tail shrank; None: ranks stay.
    """

    steps: int
    first_step: int
    total_steps: int
    batch_size: int
    accumulation: int
    learning_rate: float
    head_learning_rate: float
    schedule: Literal["constant", "linear", "cosine"]
    warmup: float
    weight_decay: float
    max_grad_norm: float
    max_tokens: int
    dropout: float
    penalties: tuple[Penalty, ...] = ()
    prune: float | None = None


@dataclass(frozen=True)
class Assignment:
    """What the server asks of one client in one round.

    kind: "train" sends back an adapter; "evaluate" only metrics of the start on held-out rows.
    trains: module -> sides that may change ("a", "b" or "ab"); the others come back untouched and do not travel.
    head: the trainables that are not LoRA, by name; empty for generation.
    generate_rows: held-out rows to answer (evaluate), 0 for the loss alone.
    seed: of the client's draws in this round.
    """

    kind: Literal["train", "evaluate"]
    round: int
    client: str
    start: Start
    trains: Mapping[str, str]
    head: Mapping[str, Tensor]
    seed: int
    work: LocalWork | None = None
    generate_rows: int = 0


@dataclass(frozen=True)
class Contribution:
    """What a client sends back: its adapter and head (empty after "evaluate"), the number of examples, metrics.

    metrics: numbers by name; a name ends in its unit where it has one (seconds, tokens, bytes).
    """

    round: int
    client: str
    examples: int
    metrics: Mapping[str, float]
    adapter: Adapter = field(default_factory=Adapter)
    head: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class StepDone:
    """One optimizer step, for those who watch. step counts from 1; loss is the mean over the step's labels.

    per_second: tokens or images, as the unit says, of the client in this round so far.
    """

    client: str
    round: int
    step: int
    steps: int
    loss: float
    per_second: float
    unit: str


@dataclass(frozen=True)
class Dropout:
    """A client that did not answer in this round, and why."""

    round: int
    client: str
    reason: str
