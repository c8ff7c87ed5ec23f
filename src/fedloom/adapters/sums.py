"""Sums of deltas: whose factors belong together, and the sum itself where it is smaller than they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.errors import AdapterError


def check_one_shape(parts: Sequence[Factors]) -> None:
    """Raises: AdapterError if the layers have different shapes."""
    shapes = {part.shape for part in parts}
    if len(shapes) != 1:
        raise AdapterError("only factors of one layer can be stacked", expected="one shape", found=sorted(shapes))


def by_module(adapters: Iterable[Adapter]) -> dict[str, list[Factors]]:
    """module -> the factors of those adapters that have it, in their order."""
    found: dict[str, list[Factors]] = {}
    for adapter in adapters:
        for module, factors in adapter.items():
            found.setdefault(module, []).append(factors)
    return found


def summed_delta(parts: Sequence[Factors]) -> Tensor:
    """The sum of the deltas as one tensor of size out x in. Raises: AdapterError as `stack`."""
    check_one_shape(parts)
    dtype = max((part.a.dtype for part in parts), key=lambda dtype: torch.finfo(dtype).bits)
    delta = parts[0].a.new_zeros(parts[0].shape, dtype=torch.promote_types(dtype, torch.float32))
    for part in parts:
        add_delta_(delta, part)
    return delta


def add_delta_(delta: Tensor, factors: Factors) -> None:
    """delta += scaling * b @ a in place, with nothing of that size beside it."""
    delta.addmm_(factors.b.to(delta.dtype), factors.a.to(delta.dtype), alpha=factors.scaling)


class Identities:
    """Writes deltas out as factors, with one identity for all layers of a side: it may be as large as a delta."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def factors(self, delta: Tensor) -> Factors:
        """The delta itself as one factor, the identity of its smaller side as the other."""
        key = (min(delta.shape), delta.dtype, delta.device)
        if key not in self._known:
            self._known[key] = torch.eye(key[0], dtype=delta.dtype, device=delta.device)
        identity = self._known[key]
        return Factors(delta, identity) if delta.shape[0] == len(identity) else Factors(identity, delta)


def written_out(factors: Factors) -> Tensor | None:
    """The delta of factors as `Identities` makes them, which is one of them; None for all others."""
    outputs, inputs = factors.shape
    delta, identity = (factors.a, factors.b) if outputs <= inputs else (factors.b, factors.a)
    square = identity.shape[0] == identity.shape[1] == min(outputs, inputs)
    if not square or factors.scaling != 1 or not torch.equal(identity, torch.eye(len(identity)).to(identity)):
        return None
    return delta
