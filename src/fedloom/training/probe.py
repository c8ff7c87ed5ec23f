"""What this machine makes of a base: a small grid of real training steps, at one number of bits.

Each trial tells of something that those before it do not: depth, length, batch, few modules, rank, length and batch at
once. Those that are needed come first; a later one that would take longer than the time that is left is left out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from fedloom.errors import PlanError
from fedloom.planning.cost import base_bytes, usage
from fedloom.planning.values import Architecture, Choice, Machine, Speed, Work
from fedloom.spec.experiment import Bits
from fedloom.training.architecture import architecture_of, tokens_of_image
from fedloom.training.base_model import BaseModel
from fedloom.training.memory import available_bytes
from fedloom.training.trial import Trial, Tried, tried

RANK, WIDE = 8, 64
SHORT, MIDDLE, LONG, LONGEST = 32, 64, 128, 256  # tokens of a row
TIMED_SECONDS = 1.0  # at least so much is timed of a trial, or MOST_STEPS
FEWEST_STEPS, MOST_STEPS, FIRST_STEPS = 1, 10, 3  # timed ones of a trial; of the first, whose seconds are not known
NEEDED = 4  # trials, the first ones of the grid
ROOM = 0.8  # of the memory that is free; a trial that may need more is left out


@dataclass(frozen=True)
class ProbedBits:
    """What was measured at some bits. number: bits as planning counts them.  stopped: why the grid ended early."""

    bits: Bits
    number: int
    tried: tuple[Tried, ...]
    stopped: str | None = None


def number_of_bits(base: BaseModel) -> int:
    """32, 16, 8 or 4: of the linear layers."""
    return base.dtype.itemsize * 8 if base.bits == "none" else base.bits


def probed(base: BaseModel, seconds: float, max_tokens: int = LONGEST) -> ProbedBits:
    """The trials that fit into the seconds, and at least those that are needed; each twice, where there is time.

    max_tokens: that a row may have.
    Raises: PlanError where the memory does not suffice for the first one.
    """
    end, architecture, number = time.monotonic() + seconds, architecture_of(base), number_of_bits(base)
    found: dict[Trial, Tried] = {}
    stopped = None
    for trial in dict.fromkeys(grid(base, architecture, max_tokens)):
        expected = _expected(found.values(), trial)
        if len(found) >= NEEDED and not _fits(expected, end):
            stopped = "the time was used"
            continue
        short = _too_large(architecture, number, base, trial)
        measured = None if short else _tried_within_memory(base, trial, _steps(expected))
        if measured is None and not found:
            raise _no_memory(base, trial, short)
        if measured is None:
            stopped = "the memory would not have sufficed for more"
            break
        found[trial] = measured
    return ProbedBits(base.bits, number, tuple(_once_more(base, found.values(), end)), stopped)


def _once_more(base: BaseModel, found: Iterable[Tried], end: float) -> Iterator[Tried]:
    """Each trial again while there is time: the shorter time counts, as what else runs on a machine only adds to it."""
    for first in found:
        again = None
        if _fits(first.step_seconds, end):
            again = _tried_within_memory(base, first.trial, _steps(first.step_seconds))
        seconds = first.step_seconds if again is None else min(first.step_seconds, again.step_seconds)
        yield replace(first, step_seconds=seconds)


def _fits(expected: float | None, end: float) -> bool:
    """Whether a trial, with its first step, would be over in time."""
    return expected is None or time.monotonic() + (1 + _steps(expected)) * expected <= end


def grid(base: BaseModel, architecture: Architecture, max_tokens: int) -> Iterator[Trial]:
    """The trials in their order; fewer for a quantised base, which differs from the plain one in few coefficients."""
    every = tuple(module.name for module in architecture.modules)
    upper = tuple(module.name for module in architecture.modules if module.block >= architecture.blocks // 2) or every
    image = tokens_of_image(base) if base.task == "image-classification" else None

    def trial(names: tuple[str, ...], rank: int, batch: int, tokens: int, share: float = 0.5) -> Trial:
        tokens = image or min(tokens, max_tokens)
        labels = 1 if base.classifies else max(1, math.ceil(share * (tokens - 1)))
        return Trial(tuple((name, rank) for name in names), batch, tokens, labels)

    yield trial(every, RANK, 1, SHORT)
    yield trial(upper, RANK, 1, SHORT)
    yield trial(every, RANK, 1, LONGEST)
    yield trial(every, RANK, 8, MIDDLE, 0.1)
    if base.bits != "none":
        yield trial(every, RANK, 4, LONG)
        return
    yield trial(every[::2], RANK, 4, MIDDLE)
    yield trial(every, WIDE, 1, SHORT)
    yield trial(every, RANK, 4, LONG)
    yield trial(every, WIDE, 4, MIDDLE)
    yield trial(every, RANK, 8, LONG)
    yield trial(upper, RANK, 2, LONG, 0.1)


def _expected(found: Iterable[Tried], trial: Trial) -> float | None:
    """Seconds of a step, roughly: as long as an earlier trial of no fewer modules took, more for more tokens.

    None before the first trial.
    """
    tokens = trial.batch * trial.tokens
    alike = (one for one in found if len(one.trial.ranks) >= len(trial.ranks))
    return min(
        (one.step_seconds * max(1.0, tokens / (one.trial.batch * one.trial.tokens)) for one in alike), default=None
    )


def _steps(expected: float | None) -> int:
    if expected is None:
        return FIRST_STEPS
    return min(MOST_STEPS, max(FEWEST_STEPS, math.ceil(TIMED_SECONDS / max(expected, 1e-6))))


def _too_large(architecture: Architecture, bits: int, base: BaseModel, trial: Trial) -> str | None:
    """What a trial needs beside the base, if that is more than there is, by coefficients that are roughly right."""
    machine = Machine(1.0, (Speed(bits, 0.0, 0.0),), compute_bytes=base.dtype.itemsize)
    work = Work(1, trial.batch, trial.tokens, trial.labels)
    whole = usage(architecture, machine, work, Choice(trial.ranks, bits, trial.batch, 1)).memory_bytes
    needed, there = whole - base_bytes(architecture, bits, base.dtype.itemsize), available_bytes(base.device)
    return None if needed < ROOM * there else f"about {needed / 1e6:.0f} MB needed, {there / 1e6:.0f} MB free"


def _tried_within_memory(base: BaseModel, trial: Trial, steps: int) -> Tried | None:
    """None where the memory did not suffice after all."""
    try:
        return tried(base, trial, steps)
    except (MemoryError, torch.cuda.OutOfMemoryError):
        return None
    except RuntimeError as error:
        if "alloc" in str(error) or "memory" in str(error):
            return None
        raise


def _no_memory(base: BaseModel, trial: Trial, short: str | None) -> PlanError:
    return PlanError(
        "the memory does not suffice for the smallest configuration",
        where=f"{base.identity}, bits {base.bits}",
        expected=f"room for {trial.batch} row of {trial.tokens} tokens",
        found=short,
        do="Close other programs, or choose a smaller base model",
    )
