"""A few real training steps on made-up rows: how long one takes, and how much memory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat
from statistics import median

import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import Start
from fedloom.data.batches import AnyBatch, Batch, ImageBatch
from fedloom.rng import generator
from fedloom.rounds.messages import Assignment, LocalWork, StepDone
from fedloom.training.architecture import image_shape
from fedloom.training.base_model import BaseModel
from fedloom.training.local import load_assignment, train_loaded
from fedloom.training.lora_layer import clear
from fedloom.training.losses import IGNORED
from fedloom.training.peak import How, measured_peak


@dataclass(frozen=True)
class Trial:
    """What is tried. ranks: (module, rank).  batch: rows of a step.  tokens, labels: of a row."""

    ranks: tuple[tuple[str, int], ...]
    batch: int
    tokens: int
    labels: int


@dataclass(frozen=True)
class Tried:
    """step_seconds: the median of a step without the first one, in which memory is taken and kernels are made."""

    trial: Trial
    peak_bytes: int
    step_seconds: float
    how: How


def tried(base: BaseModel, trial: Trial, steps: int) -> Tried:
    """The measurements of 1 + steps optimizer steps, by the loop that trains clients; the base is left plain.

    Raises: RunError where the loss is not finite; MemoryError or RuntimeError where the memory does not suffice.
    """
    assignment, batch = _assignment(base, trial, 1 + steps), _batch(base, trial)
    ends: list[float] = []

    def note(_: StepDone) -> None:
        if base.device.type == "cuda":
            torch.cuda.synchronize(base.device)
        ends.append(time.perf_counter())

    try:
        with measured_peak(base.device) as peak:
            load_assignment(base, assignment)
            train_loaded(base, assignment, _endless(batch), note)
    finally:
        clear(base)
    return Tried(trial, peak.bytes, median(_differences(ends)), peak.how)


def _differences(ends: Sequence[float]) -> list[float]:
    return [end - begin for begin, end in pairwise(ends)]


def _endless(batch: AnyBatch) -> Iterator[AnyBatch]:
    return repeat(batch)


def _batch(base: BaseModel, trial: Trial) -> AnyBatch:
    """Rows of equal length, drawn at random: what they say plays no part in what they cost."""
    draw = generator(0, "trial")
    if base.classifies:
        labels = torch.arange(trial.batch) % len(base.labels or (0, 1))
    if base.task == "image-classification":
        return ImageBatch(torch.randn(trial.batch, *image_shape(base), generator=draw), labels)
    known = base.model.get_input_embeddings().weight.shape[0]
    inputs = torch.randint(0, known, (trial.batch, trial.tokens), generator=draw)
    inputs[inputs == base.pad_id] = (base.pad_id + 1) % known
    if base.task == "classification":
        return Batch(inputs, labels)
    learned = inputs.clone()
    learned[:, : trial.tokens - trial.labels] = IGNORED
    return Batch(inputs, learned)


def _assignment(base: BaseModel, trial: Trial, steps: int) -> Assignment:
    work = LocalWork(
        steps=steps,
        first_step=0,
        total_steps=steps,
        batch_size=trial.batch,
        accumulation=1,
        learning_rate=1e-6,
        head_learning_rate=1e-6,
        schedule="constant",
        warmup=0.0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_tokens=trial.tokens,
        dropout=0.0,
    )
    trains = {name: "ab" for name, _ in trial.ranks}
    start = Start(Adapter({name: _factors(base, name, rank) for name, rank in trial.ranks}))
    return Assignment("train", 1, "probe", start, trains, base.head_tensors(), 0, work)


def _factors(base: BaseModel, name: str, rank: int) -> Factors:
    """b is not 0, so that a has a gradient as well."""
    out, inputs = base.modules[name]
    draw = generator(0, "trial", name)
    a = torch.randn(rank, inputs, generator=draw) / inputs**0.5
    return Factors(a, 0.01 * torch.randn(out, rank, generator=draw), 1.0)
