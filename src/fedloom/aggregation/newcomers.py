"""What a client begins from that comes when others have trained already."""

from __future__ import annotations

import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import truncate
from fedloom.adapters.factors import Factors


def begun_from(rest: Adapter, initial: Adapter, own_factor: float = 1.0) -> Adapter:
    """Factors in the shape of `initial` with the deltas of `rest`, as far as their ranks go.

    own_factor: what a mixture multiplies them by; they are divided by it, so that any mixture of the two is `rest`.

    Where the rest has fewer directions, the others are those of `initial`'s a with b = 0; a module that it lacks stays
    as it is there. Shapes: a (rank, in), b (out, rank), with the rank and the scaling of `initial`.
    """

    def joined(module: str, factors: Factors) -> Factors:
        if module not in rest:
            return factors
        known = truncate(rest[module], factors.rank).scaled(1 / own_factor).folded(factors.scaling)
        a = torch.cat([known.a, factors.a[known.rank :]])
        b = torch.cat([known.b, torch.zeros_like(factors.b[:, known.rank :])], dim=1)
        return Factors(a.contiguous(), b.contiguous(), factors.scaling)

    return initial.map(joined)
