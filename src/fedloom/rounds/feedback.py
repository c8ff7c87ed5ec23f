"""Error feedback: what rounding leaves unsent stays at its client and goes out with a later change. Nothing is lost.

A client trained s b a and owes R of earlier rounds, a delta in factors: the start is in other directions every round,
so that what is owed cannot be remembered number by number. Before it sends, it pays what its factors can hold,

    b1 = b + R a+ / s              (where b is sent; a+ is the pseudo-inverse of a)
    a1 = a + b1+ (R - R a+ a) / s  (where a is sent; a1 = a + b+ R / s where b is not)

so that s b1 a1 is s b a + R but for what lies outside both. With b2, a2 what arrives of b1, a1, it owes after the round

    R' = s b a + R - s b2 a2

and sum_t s b2 a2 = sum_t s b a - R: over rounds the mean of what arrived is that of what was trained, as long as R
stays bounded. With a frozen a this is error feedback as usual. Only `residual` times the client's rank directions of R'
are kept, the strongest; what is left out is measured.  Source: error feedback (Seide et al., 2014; Karimireddy et al.,
2019, arXiv 1901.09847); paying in factors is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import Spectrum, norm, spectra_of_sums, truncate
from fedloom.adapters.factors import Factors
from fedloom.adapters.packing import Coding, rounded
from fedloom.rounds.messages import Assignment, Contribution

# Directions of a factor that are weaker than this share of its strongest are not paid through: they would have to move
# far for little, and be rounded by much. What is theirs stays owed.
FAINT_DIRECTIONS = 0.3
RESIDUAL, LOST, FORGOTTEN = "wire_residual", "wire_lost", "wire_forgotten"


@dataclass(frozen=True)
class Owed:
    """What a client has not sent yet. delta: of its factors.  head: of its head, number by number."""

    delta: Adapter = field(default_factory=Adapter)
    head: Mapping[str, Tensor] = field(default_factory=dict)


NOTHING = Owed()


def offered(assignment: Assignment, trained: Contribution, owed: Owed) -> tuple[Contribution, Owed]:
    """(what is sent, what is owed after it arrived). What is sent is not rounded yet: its bytes are.

    Metrics are added: the norms of what is owed, and of what was left out as more directions than are kept.
    Raises: AdapterError for numbers that are not finite.
    """
    if assignment.wire.up.is_exact:
        return trained, NOTHING
    paid = _paid(assignment, trained, owed)
    arrives = as_it_arrives(assignment, paid)
    delta, lost = _unsent(assignment, trained, owed, arrives)
    head = {name: tensor - arrives.head[name] for name, tensor in paid.head.items()}
    metrics = {**paid.metrics, RESIDUAL: norm(delta), LOST: lost}
    return replace(paid, metrics=metrics), Owed(delta, head)


def as_it_arrives(assignment: Assignment, sent: Contribution) -> Contribution:
    """What the server reads, if it had dispatched the start that arrived."""
    coding, sends = assignment.wire.up, assignment.sends

    def read(module: str, factors: Factors) -> Factors:
        start = truncate(assignment.start.trainable[module], factors.rank)
        a = _read(factors.a, start.a, coding) if "a" in sends[module] else factors.a
        b = _read(factors.b.T, start.b.T, coding).T if "b" in sends[module] else factors.b
        return Factors(a, b, factors.scaling)

    head = {name: _read(tensor, assignment.head[name], coding) for name, tensor in sent.head.items()}
    return replace(sent, adapter=sent.adapter.map(read), head=head)


def _read(sent: Tensor, start: Tensor, coding: Coding) -> Tensor:
    return start + rounded(sent - start, coding).to(start)


def _paid(assignment: Assignment, trained: Contribution, owed: Owed) -> Contribution:
    """b1 and a1 in place of b and a, and the head with what it owes."""
    sends = assignment.sends

    def pay(module: str, factors: Factors) -> Factors:
        return _with(factors, owed.delta[module], sends[module]) if module in owed.delta else factors

    head = {
        name: tensor + owed.head[name].to(tensor) if name in owed.head else tensor
        for name, tensor in trained.head.items()
    }
    return replace(trained, adapter=trained.adapter.map(pay), head=head)


def _with(factors: Factors, owed: Factors, sides: str) -> Factors:
    """s b1 a1 = s b a + R, as far as the sides that are sent can hold it."""
    a, b, owed_a, owed_b = (
        side.double() for side in (factors.a, factors.b, owed.a.to(factors.a), owed.b.to(factors.b))
    )
    owed_b = owed_b * (owed.scaling / factors.scaling)
    if "b" in sides:
        held = owed_a @ _inverse(a)
        b, owed_a = b + owed_b @ held, owed_a - held @ a
    if "a" in sides:
        a = a + (_inverse(b) @ owed_b) @ owed_a
    return Factors(a.to(factors.a), b.to(factors.b), factors.scaling)


def _inverse(factor: Tensor) -> Tensor:
    return torch.linalg.pinv(factor, rtol=FAINT_DIRECTIONS)


def _unsent(assignment: Assignment, trained: Contribution, owed: Owed, arrives: Contribution) -> tuple[Adapter, float]:
    """R' in the directions that are kept, and the norm of the others and of what no module that is trained can pay.

    Formula: s b a - s b2 a2 = s (b - b2) a + s b2 (a - a2), whose parts do not cancel each other.
    """
    sums = {module: _parts(factors, arrives.adapter[module]) for module, factors in trained.adapter.items()}
    for module, factors in owed.delta.items():
        if module in sums:
            sums[module].append(factors.to(torch.float32))
    found = spectra_of_sums(sums)
    kept = {module: every.leading(_most(assignment, module)) for module, every in found.items()}
    never = Adapter({module: factors for module, factors in owed.delta.items() if module not in sums})
    lost = math.hypot(
        math.sqrt(sum(_square(every) - _square(kept[module]) for module, every in found.items())), norm(never)
    )
    return Adapter({module: some.factors() for module, some in kept.items() if len(some.s)}), lost


def _parts(trained: Factors, arrives: Factors) -> list[Factors]:
    before, after = (factors.to(torch.float32) for factors in (trained, arrives))
    return [
        Factors(before.a, before.b - after.b, before.scaling),
        Factors(before.a - after.a, after.b, before.scaling),
    ]


def _most(assignment: Assignment, module: str) -> int:
    return math.ceil(assignment.wire.residual * assignment.start.trainable[module].rank)


def _square(spectrum: Spectrum) -> float:
    return float(spectrum.s.double().square().sum())


_DELTA, _HEAD = "owed", "owed head"


def to_tensors(owed: Owed) -> dict[str, Tensor]:
    """By names under which a client can keep it beside its sides."""
    sides = {
        f"{_DELTA}|{side}|{module}": getattr(factors.folded(), side)
        for module, factors in owed.delta.items()
        for side in "ab"
    }
    return sides | {f"{_HEAD}|{name}": tensor for name, tensor in owed.head.items()}


def from_tensors(tensors: Mapping[str, Tensor]) -> Owed:
    """What was kept as `to_tensors`; other names are left alone."""
    a, b, head = (_under(f"{prefix}|", tensors) for prefix in (f"{_DELTA}|a", f"{_DELTA}|b", _HEAD))
    return Owed(Adapter({module: Factors(a[module], b[module]) for module in a}), head)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
