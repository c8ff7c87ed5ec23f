"""What is added over clients as one vector, so that it can be masked: the client's half, and the way back.

    vector = (sums of the summand | weight of each module | weight * head | weight | sketches of its deltas
              | weight * score of each module | weight of each module that it scored
              | whether its change kept the bound)

A client makes of what it trained what `lift` makes of it, times its weight; the sum of the vectors is a `Tally`. The
scores are there where importance is measured, and the last number where clients are counted for an adaptive bound: it
is 0 until the change is clipped (`noise_shares`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.registry import method as method_named
from fedloom.aggregation.registry import settings_of
from fedloom.aggregation.sketch import Sketch, relative
from fedloom.aggregation.summand import RunningSum, Summand
from fedloom.aggregation.world import ClientFacts, Slot, Start, World
from fedloom.errors import RunError
from fedloom.planning.importance import ScoreSum
from fedloom.privacy.secagg.fixed_point import FixedPoint
from fedloom.privacy.secagg.terms import Terms
from fedloom.rounds.messages import Assignment, Contribution, Masking
from fedloom.rounds.step import Tally

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """What is where in a vector: the same for all clients of a round, whatever their ranks.

    sums, head: name -> (shape, dtype), in sorted order.  modules, sketches: in sorted order of the modules.
    scored: modules that clients may score, in sorted order; empty where importance is not measured.
    counts: numbers that count clients, 0 or 1.
    """

    sums: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    modules: tuple[str, ...]
    head: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    sketches: Mapping[str, Sketch]
    scored: tuple[str, ...] = ()
    counts: int = 0

    @property
    def length(self) -> int:
        tensors = sum(math.prod(shape) for table in (self.sums, self.head) for shape, _ in table.values())
        parts = sum(math.prod(shape) for sketch in self.sketches.values() for shape in sketch.sizes.values())
        return tensors + len(self.modules) + 1 + parts + 2 * len(self.scored) + self.counts


def layout_of(masking: Masking, assignment: Assignment) -> Layout:
    """Of the vectors of all who got such an assignment: as of a client that trains every module."""
    everything = _everything(masking)
    facts = ClientFacts(_world(masking), assignment.client, assignment.round, Start(everything))
    lifted = method_named(masking.method).lift(everything, 1.0, facts).dense()
    sketches = {module: _sketch(masking, assignment, module) for module in sorted(lifted.stack)}
    asked = assignment.work is not None and assignment.work.importance is not None
    scored = tuple(sorted(masking.modules)) if asked else ()
    counts = int(masking.noise is not None and masking.noise.counting > 0)
    return Layout(_table(lifted.sums), tuple(sorted(lifted.weights)), _table(assignment.head), sketches, scored, counts)


def _everything(masking: Masking) -> Adapter:
    """Zero factors for each module, of the largest rank there."""

    def zeros(at: int, outputs: int, inputs: int) -> Factors:
        rank = max(own[at][0] for own in masking.slots.values())
        return Factors(torch.zeros(rank, inputs), torch.zeros(outputs, rank))

    return Adapter({module: zeros(at, *shape) for at, (module, shape) in enumerate(masking.modules.items())})


def terms_of(masking: Masking, layout: Layout) -> Terms:
    """The terms of the secure sum. Raises: RunError for terms that cannot be."""
    return Terms(bytes.fromhex(masking.round_id), masking.clients, masking.threshold, layout.length)


def fixed_point_of(masking: Masking) -> FixedPoint:
    """Room for the weight times the bound of every number, and for counts, ranks and sums of as many directions."""
    ranks = (rank for slots in masking.slots.values() for rank, _ in slots)
    bound = max(1.0, masking.max_update_norm, *ranks)
    return FixedPoint(masking.largest_weight * bound, len(masking.clients))


def to_vector(contribution: Contribution, assignment: Assignment) -> Vector:
    """What this client adds to the sum. Raises: RunError for an assignment without masking."""
    masking = assignment.masking
    if masking is None:
        raise RunError("the assignment asks for no secure sum", where=f"client {assignment.client!r}")
    weight = float(contribution.examples) if masking.weighting == "examples" else 1.0
    layout, facts = layout_of(masking, assignment), _facts(masking, assignment)
    lifted = method_named(masking.method).lift(contribution.adapter, weight, facts).dense()
    _require_known(lifted, layout, assignment)
    sums = [
        _flat(lifted.sums[name]) if name in lifted.sums else np.zeros(math.prod(shape))
        for name, (shape, _) in layout.sums.items()
    ]
    weights = np.array([lifted.weights.get(module, 0.0) for module in layout.modules])
    head = [_flat(contribution.head[name]) * weight for name in sorted(contribution.head)]
    sketched = [_parts(sketch, lifted.stack.get(module)) for module, sketch in layout.sketches.items()]
    parts = (part for sketch in sketched for part in sketch)
    scores = _scores(contribution.importance, weight, layout)
    return np.concatenate([*sums, weights, *head, [weight], *parts, scores, np.zeros(layout.counts)])


def _scores(importance: Mapping[str, float], weight: float, layout: Layout) -> Vector:
    """weight * score of each module, then the weight of each that has one. A score is at most 1: it has room."""
    scores = [weight * importance.get(module, 0.0) for module in layout.scored]
    return np.array([*scores, *(weight * (module in importance) for module in layout.scored)])


def _parts(sketch: Sketch, factors: Factors | None) -> list[Vector]:
    """What a client adds to a sketch: nothing of a module that it does not train."""
    if factors is None:
        return [np.zeros(math.prod(shape)) for shape in sketch.sizes.values()]
    return [_flat(part) for part in sketch.parts(factors).values()]


def _require_known(lifted: Summand, layout: Layout, assignment: Assignment) -> None:
    """Raises: RunError for a module that nobody is to train in this sum."""
    unknown = sorted(lifted.weights.keys() - set(layout.modules))
    if unknown:
        raise RunError(
            "the client trained a module that is not in the secure sum",
            where=f"client {assignment.client!r}, module {unknown[0]!r}",
            expected=f"some of {list(layout.modules)}",
        )


def _sketch(masking: Masking, assignment: Assignment, module: str) -> Sketch:
    """Of one module in this round. Raises: RunError for a stack of something else than the clients' modules."""
    modules = list(masking.modules)
    if module not in modules:
        raise RunError(
            f"what clients of {masking.method} add is more than a sum",
            where=f"client {assignment.client!r}, {module!r}",
            expected="a method of which the server needs the sum alone",
            do="Turn [secure_aggregation] off, or take another method",
        )
    at, shape = modules.index(module), masking.modules[module]
    ranks = sum(masking.slots[client][at][0] for client in masking.clients)
    width = min(ranks if masking.sketch_width is None else min(masking.sketch_width, ranks), *shape)
    return Sketch(shape, width, masking.seed, f"{assignment.round}|{module}")


def sent_sides(assignment: Assignment, trained: Adapter) -> Adapter:
    """What was trained, with the start's factors where the assignment lets none travel: the rest is in no sum."""

    def sent(module: str, factors: Factors) -> Factors:
        start, sides = assignment.start.trainable[module], assignment.sends[module]
        a, b = (getattr(factors if side in sides else start, side) for side in "ab")
        return Factors(a, b, factors.scaling)

    return trained.map(sent)


def to_tally(vector: Vector, layout: Layout, clients: tuple[str, ...]) -> tuple[Tally, float]:
    """The sum of these clients' vectors as what `step` goes on from, and what sketches miss of it, relative to it."""
    reading = _Reading(vector)
    sums = {name: reading.tensor(shape).to(dtype) for name, (shape, dtype) in layout.sums.items()}
    weights = {module: float(reading.tensor(())) for module in layout.modules}
    weights = {module: weight for module, weight in weights.items() if weight > 0}  # of the others nobody was here
    head = {name: reading.tensor(shape).to(dtype) for name, (shape, dtype) in layout.head.items()}
    weight = float(reading.tensor(()))
    stack: dict[str, Factors] = {}
    errors = []
    for module, sketch in layout.sketches.items():
        parts = {name: reading.tensor(shape) for name, shape in sketch.sizes.items()}
        found = sketch.summed(parts)
        errors.append(sketch.error(parts, found))
        if module in weights:
            stack[module] = Factors(found.a.float(), found.b.float())
    scores, scorers = ({module: float(reading.tensor(())) for module in layout.scored} for _ in range(2))
    within = float(reading.tensor(())) if layout.counts else 0.0
    summed, heads = RunningSum(), RunningSum()
    summed.add_(Summand(sums, Adapter(stack), weights))
    heads.add_(Summand(sums=head))
    return Tally(summed, heads, weight, clients, within=within, importance=ScoreSum(scores, scorers)), relative(errors)


class _Reading:
    """A vector that is read from its beginning."""

    def __init__(self, vector: Vector) -> None:
        self._vector, self._at = vector, 0

    def tensor(self, shape: tuple[int, ...]) -> Tensor:
        """The next numbers in this shape."""
        begin, self._at = self._at, self._at + math.prod(shape)
        return torch.from_numpy(self._vector[begin : self._at].copy()).reshape(shape)


def _facts(masking: Masking, assignment: Assignment) -> ClientFacts:
    return ClientFacts(_world(masking), assignment.client, assignment.round, assignment.start)


def _world(masking: Masking) -> World:
    """The world of the run as far as a client may know it: shapes, ranks, settings."""
    slots = {
        client: {
            module: Slot(rank, scaling)
            for module, (rank, scaling) in zip(masking.modules, own, strict=True)
            if rank > 0
        }
        for client, own in masking.slots.items()
    }
    settings = settings_of(method_named(masking.method), masking.settings)
    return World(masking.modules, slots, settings, masking.seed, sums_only=True)


def _table(tensors: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(tensors[name].shape), tensors[name].dtype) for name in sorted(tensors)}


def _flat(tensor: Tensor) -> Vector:
    return tensor.detach().to("cpu", torch.float64).reshape(-1).numpy()
