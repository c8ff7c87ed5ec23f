"""The work of one client in one round: the training loop."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.errors import RunError
from fedloom.rounds.messages import WORK_UNITS, Assignment, LocalWork, StepDone
from fedloom.training.base_model import BaseModel
from fedloom.training.layerwise import LAYERWISE, adamw
from fedloom.training.lora_layer import load_start, trained, trained_mixers
from fedloom.training.losses import amounts, batch_loss, label_count
from fedloom.training.optimizer_state import recall, remembered
from fedloom.training.penalties import penalty
from fedloom.training.schedule import rate_factor
from fedloom.training.sensitivity import Sensitivity, trained_layers

if TYPE_CHECKING:
    from fedloom.data.batches import AnyBatch


class DivergedError(RunError):
    """Training gave a loss or a gradient that is not a finite number."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What a client has learned in a round, in float32 on the CPU, and what it cost.

    importance: module -> what the loss was sensitive to, in its units; empty where that was not asked for.
    mixers: module -> G (2, in).  memory: of the optimizer, as of `optimizer_state`, for a client that goes on with it.
    """

    adapter: Adapter
    head: Mapping[str, Tensor]
    metrics: Mapping[str, float]
    importance: Mapping[str, float] = field(default_factory=dict)
    mixers: Mapping[str, Tensor] = field(default_factory=dict)
    memory: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass
class Tally:
    """Sums over the steps of a round."""

    loss: float = 0.0
    labels: int = 0
    last_loss: float = 0.0
    grad_norm: float = 0.0
    last_grad_norm: float = 0.0
    steps: int = 0
    amounts: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.perf_counter)

    def speed(self) -> tuple[float, str]:
        """What was learned from in a second so far, and its unit."""
        unit = next((unit for unit in WORK_UNITS if unit in self.amounts), WORK_UNITS[0])
        return self.amounts[unit] / (time.perf_counter() - self.started), unit

    def metrics(self) -> dict[str, float]:
        return {
            "loss": self.loss / max(self.labels, 1),
            "last_loss": self.last_loss,
            "label_tokens": float(self.labels),
            **{name: float(amount) for name, amount in self.amounts.items()},
            "seconds": time.perf_counter() - self.started,
            "steps": float(self.steps),
            "grad_norm": self.grad_norm / max(self.steps, 1),
        }


def load_assignment(base: BaseModel, assignment: Assignment) -> None:
    """Put an assignment's start and head into the base. Raises: as `load_start`, and RunError for another head."""
    dropout = 0.0 if assignment.work is None else assignment.work.dropout
    load_start(base, assignment.start, assignment.trains, dropout)
    load_head(base, assignment.head)


def train(
    base: BaseModel, assignment: Assignment, batches: Iterator[AnyBatch], observe: Callable[[StepDone], None]
) -> Trained:
    """Load an assignment and train it; see `train_loaded`."""
    work_of(assignment)
    load_assignment(base, assignment)
    return train_loaded(base, assignment, batches, observe)


def train_loaded(
    base: BaseModel, assignment: Assignment, batches: Iterator[AnyBatch], observe: Callable[[StepDone], None]
) -> Trained:
    """Train the factors by AdamW and the head by work.head_optimizer, for work.steps optimizer steps.

    AdamW begins anew, but at a client that goes on with its own (`Assignment.memory`).

    The trunk of the assignment is not looked at any more: it is in the layers.
    The penalties of the work are added to the loss that is minimised, not to the one that is reported.
    Takes work.steps * work.accumulation batches. The gradient of a step is that of the mean loss over all its labels.
    metrics: loss (mean over the round's labels), last_loss, label_tokens, tokens and padding_tokens (or images),
        seconds, steps, grad_norm (mean over steps, before clipping); importance_seconds, where that is measured.
    Raises: DivergedError if a loss or the norm of a gradient is not finite.
    """
    work = work_of(assignment)
    groups = groups_of(base, assignment, work)
    tally, sensitivity = Tally(), None
    if work.importance is not None:
        sensitivity = Sensitivity(trained_layers(base.layers), work.steps)
    with seeded(assignment.seed), training_mode(base):
        optimizer = adamw(groups)
        recall(base.layers, optimizer, assignment.memory, where=place(assignment))
        for step in range(work.steps):
            taken = list(islice(batches, work.accumulation))
            set_rates(optimizer, rate_factor(work, step))
            _one_step(base, optimizer, taken, assignment, tally, sensitivity)
            check_finite(base, assignment, step, tally)
            observe(
                StepDone(assignment.client, assignment.round, step + 1, work.steps, tally.last_loss, *tally.speed())
            )
    found = what_was_trained(base, assignment, optimizer, tally.metrics())
    if sensitivity is None:
        return found
    metrics = {**found.metrics, "importance_seconds": sensitivity.seconds}
    return replace(found, metrics=metrics, importance=sensitivity.scores())


def what_was_trained(
    base: BaseModel, assignment: Assignment, optimizer: torch.optim.Optimizer, metrics: Mapping[str, float]
) -> Trained:
    """What is in the base after a training; the optimizer's state only for a client that goes on with it."""
    memory = remembered(base.layers, optimizer) if assignment.resumes else {}
    return Trained(trained(base), base.head_tensors(), metrics, mixers=trained_mixers(base), memory=memory)


def check_finite(base: BaseModel, assignment: Assignment, step: int, tally: Tally) -> None:
    measured = {"loss": tally.last_loss, "norm of the gradient": tally.last_grad_norm}
    wrong = next((name for name, value in measured.items() if not math.isfinite(value)), None)
    if wrong is None:
        return
    if assignment.is_private:
        # Without the step and the values: the reason of a dropout travels, and no noise covers it.
        raise diverged(base, f"the {wrong}", where=place(assignment))
    found = ", ".join(f"{name} {value:g}" for name, value in measured.items())
    raise diverged(base, f"the {wrong}", where=f"{place(assignment)}, step {step + 1}", found=found)


def diverged(base: BaseModel, what: str, *, where: str, found: str | None = None) -> DivergedError:
    rates = "training.learning_rate or training.head_learning_rate" if base.head else "training.learning_rate"
    do = f"Choose a smaller {rates}, or a longer training.warmup"
    return DivergedError(f"{what} is not a finite number", where=where, found=found, do=do)


def work_of(assignment: Assignment) -> LocalWork:
    if assignment.work is None:
        raise RunError("an assignment without work cannot be trained", where=place(assignment), found=assignment.kind)
    return assignment.work


def place(assignment: Assignment) -> str:
    return f"client {assignment.client!r}, round {assignment.round}"


def groups_of(base: BaseModel, assignment: Assignment, work: LocalWork) -> list[dict[str, Any]]:
    """The optimizer's groups: factors, a rest of the world that trains, mixers, head; those that there are.

    Weight decay draws factors to zero, and a mixer that is drawn to zero would be drawn to equal shares: it has none.
    """
    parts = [layer.trainables for layer in base.layers.values()]
    found = {name: [side for part in parts for side in part[name]] for name in ("factors", "rest", "mixer")}
    mixing = assignment.start.mixing
    mixers_rate = work.learning_rate * (1.0 if mixing is None else mixing.rate)
    head = [base.model.get_parameter(name) for name in base.head]
    groups = [
        {"params": found["factors"], "peak": work.learning_rate, "weight_decay": work.weight_decay},
        {"params": found["rest"], "peak": work.learning_rate, "weight_decay": work.weight_decay},
        {"params": found["mixer"], "peak": mixers_rate, "weight_decay": 0.0},
        {
            "params": head,
            "peak": work.head_learning_rate,
            "weight_decay": 0.0,
            LAYERWISE: work.head_optimizer == "layerwise",
        },
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise RunError(
            "there is nothing to train",
            where=place(assignment),
            expected="a factor in the start that trains",
            found="none",
        )
    return groups


def load_head(base: BaseModel, head: Mapping[str, Tensor]) -> None:
    if set(head) != set(base.head):
        raise RunError("the head does not fit the base model", expected=sorted(base.head), found=sorted(head))
    with torch.no_grad():
        for name, value in head.items():
            base.model.get_parameter(name).copy_(value)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Dropout draws from the seed, and nothing outside notices."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def training_mode(base: BaseModel) -> Iterator[None]:
    """The factors' dropout and the head's gradients are on; the base stays in evaluation mode, as it is frozen."""
    for layer in base.layers.values():
        layer.train(True)
    for name in base.head:
        base.model.get_parameter(name).requires_grad_(True)
    try:
        yield
    finally:
        base.model.eval()
        for name in base.head:
            head = base.model.get_parameter(name)
            head.requires_grad_(False)
            head.grad = None


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def _one_step(
    base: BaseModel,
    optimizer: torch.optim.Optimizer,
    taken: list[AnyBatch],
    assignment: Assignment,
    tally: Tally,
    sensitivity: Sensitivity | None,
) -> None:
    work = work_of(assignment)
    labels = sum(label_count(base, batch) for batch in taken)
    mean = 0.0
    for batch in taken:
        loss, _ = batch_loss(base, batch, 1 / max(labels, 1))
        loss.backward()
        mean += loss.item()
        tally.amounts.update(amounts(base, batch))
    if sensitivity is not None:
        sensitivity.measure(tally.steps)
    added = penalty(work.penalties, base.layers, assignment.start.trainable)
    if added is not None:
        added.backward()
    params = [param for group in optimizer.param_groups for param in group["params"]]
    tally.last_grad_norm = float(torch.nn.utils.clip_grad_norm_(params, work.max_grad_norm))
    tally.grad_norm += tally.last_grad_norm
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    tally.steps, tally.labels, tally.loss = tally.steps + 1, tally.labels + labels, tally.loss + mean * labels
    tally.last_loss = mean
