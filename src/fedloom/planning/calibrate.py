"""Coefficients of the cost model, fitted to what was measured on a machine.

Both costs are linear in their coefficients x: measured_j = known_j + sum over i of F_ji x_i. Rows are divided by what
was measured, so that relative errors count alike, and x >= 0 minimises the sum of squares (NNLS, Lawson and Hanson,
1974). F comes from `cost` itself: what one coefficient adds when it is 1 and all others are 0.

A probe of a minute has hardly more trials than there are coefficients of time, so that the noise of one trial could
give all of it to one of them. Two relations that hold on every machine are therefore believed as one trial is:

    product_seconds = THIN / (2 N) (forward + backward)     a multiplication of the factors, which are thin, takes THIN
                                                            times as long as one of the base with its N weights
    backward = BACK forward                                 of a frozen base: no gradients of weights
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from fedloom.errors import PlanError
from fedloom.planning.checks import positive
from fedloom.planning.cost import step_seconds, usage
from fedloom.planning.extra import optimizers
from fedloom.planning.values import Architecture, Choice, Machine, Memory, Speed, Work

SAME = 1e-6  # a column this close to a combination of earlier ones tells nothing new
Coefficients = Mapping[str, float]
# In the order in which they are believed, where measurements cannot tell two of them apart.
MEMORY = (
    "runtime_bytes", "block_values", "logit_bytes", "rank_values", "input_values", "quantized_bytes",
    "quantized_values", "score_values",
)  # fmt: skip
OVERHEADS = (
    "batch_seconds", "product_seconds", "label_seconds", "module_seconds", "optimizer_seconds", "few_seconds",
    "attention_seconds",
)  # fmt: skip
OF_SPEED = ("forward", "backward", "weights")
# What the training loop keeps, whatever the machine: to fit it too would let the noise of few trials choose it.
KNOWN = ("logit_bytes", "input_values", "rank_values", "weights_32", "weights_16")
SHARED_INPUTS = 0.65  # of the inputs of all layers of a block: q, k and v have one in common, gate and up another
THIN, BACK = 3.0, 1.2  # as measured; see above
LOGIT_WORK_BYTES = 2.3  # of a few rows of logits in float32, as measured


# Of one label through a layer of few classes: nothing that could be told from the noise, yet with one label in each row
# it can be mistaken for what the rows take.
OF_CLASSES = "label_seconds"


@dataclass(frozen=True)
class Measurement:
    """One trial on a machine. step_seconds: of one optimizer step, all its passes included."""

    choice: Choice
    work: Work
    peak_bytes: float
    step_seconds: float

    def __post_init__(self) -> None:
        positive(self, "peak_bytes", "step_seconds")


@dataclass(frozen=True)
class Calibration:
    """machine: with fitted coefficients.  *_error: the largest |predicted / measured - 1|.

    assumed: coefficients that the measurements do not determine; they have the value they had before.
    """

    machine: Machine
    memory_error: float
    seconds_error: float
    assumed: tuple[str, ...]


def known_memory(number_bytes: int) -> Memory:
    """What is known of memory before anything is measured, at so many bytes of an activation: logits and their gradient
    are as wide as activations, and no attention scores are kept. The coefficients in KNOWN can be held."""
    return Memory(logit_bytes=2 * number_bytes + LOGIT_WORK_BYTES, input_values=SHARED_INPUTS)


def held_of(*, classifies: bool, keeps_scores: bool) -> tuple[str, ...]:
    """The coefficients that are not fitted. keeps_scores: whether attention keeps its scores for the backward pass."""
    return (*KNOWN, *(() if keeps_scores else ("score_values",)), *((OF_CLASSES,) if classifies else ()))


def calibrated(
    architecture: Architecture,
    machine: Machine,
    measurements: Sequence[Measurement],
    held: Collection[str] = (),
    *,
    related: bool = True,
) -> Calibration:
    """The machine with the coefficients that fit best; everything else of it is left as it is.

    held: names of coefficients that are not fitted.
    related: whether the relations above are believed; without them, exact measurements give exact coefficients.

    Raises: PlanError without measurements, for an unknown module, or without scipy.
    """
    if not measurements:
        raise PlanError("there is nothing to calibrate with", expected="at least one measurement", found="none")
    bits = sorted({one.choice.bits for one in measurements} | {speed.bits for speed in machine.speeds})
    prior = _seconds_of(machine, bits)

    def memory(one: Measurement, x: Coefficients) -> float:
        tried = replace(_with_seconds(machine, prior, bits), memory=Memory(**x))
        return usage(architecture, tried, one.work, one.choice).memory_bytes

    def seconds(one: Measurement, x: Coefficients) -> float:
        return step_seconds(architecture, _with_seconds(machine, x, bits), one.work, one.choice)

    before = {field.name: getattr(machine.memory, field.name) for field in fields(Memory)}
    peaks = np.array([one.peak_bytes for one in measurements])
    spent = np.array([one.step_seconds for one in measurements])
    of_memory, memory_error, memory_assumed = _fitted(
        {name: before[name] for name in MEMORY}, memory, measurements, peaks, held
    )
    believed = _believed(architecture, bits) if related else ()
    of_time, seconds_error, seconds_assumed = _fitted(prior, seconds, measurements, spent, held, believed)
    fitted = replace(_with_seconds(machine, of_time, bits), memory=Memory(**of_memory))
    return Calibration(fitted, memory_error, seconds_error, memory_assumed + seconds_assumed)


def _believed(architecture: Architecture, bits: Sequence[int]) -> list[Coefficients]:
    """Relations between coefficients of time, each a sum that is 0; the first name of each gives its scale."""
    most, share = max(bits), THIN / (2 * max(architecture.linear_parameters, 1))
    thin = {"product_seconds": 1.0, f"forward_{most}": -share, f"backward_{most}": -share}
    return [thin, *({f"backward_{number}": 1.0, f"forward_{number}": -BACK} for number in bits)]


def _seconds_of(machine: Machine, bits: Sequence[int]) -> dict[str, float]:
    """The coefficients of time by name, those of speeds with their bits; 0 for bits that are new."""
    speeds = {speed.bits: speed for speed in machine.speeds}
    found = {"batch_seconds": machine.batch_seconds}
    for number in bits:
        speed = speeds.get(number, Speed(number, 0.0, 0.0))
        found |= {f"{part}_{number}": getattr(speed, f"{part}_seconds") for part in OF_SPEED}
    return found | {name: getattr(machine, name) for name in OVERHEADS[1:]}


def _with_seconds(machine: Machine, x: Coefficients, bits: Sequence[int]) -> Machine:
    speeds = tuple(Speed(number, *(x[f"{part}_{number}"] for part in OF_SPEED)) for number in bits)
    overheads: dict[str, Any] = {name: x[name] for name in OVERHEADS}
    return replace(machine, speeds=speeds, **overheads)


def _fitted(
    prior: Coefficients,
    cost: Callable[[Measurement, Coefficients], float],
    measurements: Sequence[Measurement],
    measured: np.ndarray,
    held: Collection[str],
    believed: Sequence[Coefficients] = (),
) -> tuple[dict[str, float], float, tuple[str, ...]]:
    """Coefficients, the largest relative error, and the names of those that are not held and keep their prior still.

    believed: relations that count as one measurement each.
    """
    nothing = dict.fromkeys(prior, 0.0)
    known = np.array([cost(one, nothing) for one in measurements])
    columns = {name: np.array([cost(one, nothing | {name: 1.0}) for one in measurements]) - known for name in prior}
    scales = [float(np.mean(columns[next(iter(relation))] / measured)) for relation in believed]
    related = {
        name: np.array([scale * one.get(name, 0.0) for scale, one in zip(scales, believed, strict=True)])
        for name in prior
    }
    rows = {name: np.concatenate([column / measured, related[name]]) for name, column in columns.items()}
    told = _independent({name: row for name, row in rows.items() if name not in held})
    kept = {name: prior[name] for name in prior if name not in told}
    wanted = np.concatenate([(measured - known) / measured, np.zeros(len(believed))])
    rest = wanted - _combined(rows, kept)
    x: dict[str, float] = {**prior} | _nonnegative({name: rows[name] for name in told}, rest)
    predicted = known + _combined(columns, x)
    assumed = tuple(name for name in kept if name not in held)
    return x, float(np.abs(predicted / measured - 1).max()), assumed


def _combined(columns: Mapping[str, np.ndarray], x: Coefficients) -> Any:
    return sum((x[name] * columns[name] for name in x), start=0.0)


def _independent(columns: Mapping[str, np.ndarray]) -> list[str]:
    """The names, in order, of columns that are no combination of earlier ones (Gram-Schmidt)."""
    names: list[str] = []
    basis: list[np.ndarray] = []
    for name, column in columns.items():
        rest = column.astype(float)
        for _ in range(2):  # once more, for what rounding left
            for one in basis:
                rest = rest - (one @ rest) * one
        if np.linalg.norm(rest) > SAME * max(float(np.linalg.norm(column)), 1e-300):
            names.append(name)
            basis.append(rest / np.linalg.norm(rest))
    return names


def _nonnegative(columns: Mapping[str, np.ndarray], wanted: np.ndarray) -> dict[str, float]:
    """x >= 0 with the least squares of sum x_i column_i - wanted; columns are scaled to length 1 on the way."""
    if not columns:
        return {}
    lengths = {name: float(np.linalg.norm(column)) for name, column in columns.items()}
    matrix = np.stack([column / lengths[name] for name, column in columns.items()], axis=1)
    x, _ = optimizers().nnls(matrix, wanted)
    return {name: float(value) / lengths[name] for name, value in zip(columns, x, strict=True)}
