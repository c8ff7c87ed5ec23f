"""Terms that are added to the loss: on the factors alone, so that they cost nothing next to a batch.

Distances of deltas go through r x r Gram matrices; nothing of size out x in is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.local_rules import Penalty, kept_rank
from fedloom.training.lora_layer import LoraLayer


def penalty(penalties: Iterable[Penalty], layers: Mapping[str, LoraLayer], start: Adapter) -> Tensor | None:
    """The sum of all terms over all modules that train, to be differentiated; None if there is no term."""
    pairs = {module: (layers[module].a, layers[module].b) for module in start}
    terms = [
        _term(rule, a, b, start[module])
        for rule in penalties
        for module, (a, b) in pairs.items()
        if a is not None and b is not None
    ]
    return torch.stack(terms).sum() if terms else None


def _term(rule: Penalty, a: Tensor, b: Tensor, start: Factors) -> Tensor:
    if rule.kind == "proximal":
        return rule.strength / 2 * squared_distance(a, b, start)
    kept = kept_rank(len(a), rule.share)
    return rule.strength * b[:, kept:].norm() * a[kept:].norm()


def squared_distance(a: Tensor, b: Tensor, start: Factors) -> Tensor:
    """|s b a - s b0 a0|^2 (Frobenius), differentiable in a and b.

    Formula: b a - b0 a0 = (b - b0) a + b0 (a - a0) = [b - b0, b0] [a; a - a0] = B A, whose squared norm is
    sum((B^T B) * (A A^T)). Written by differences, as b a and b0 a0 are nearly the same and would cancel.
    Shapes: a, a0 (rank, in), b, b0 (out, rank).
    """
    a0, b0 = start.a.to(a), start.b.to(b)
    left, right = torch.cat([b - b0, b0], dim=1), torch.cat([a, a - a0])
    return start.scaling**2 * ((left.T @ left) * (right @ right.T)).sum()
