"""The bank's mean of each rank index over the clients that own it: padding means missing, not zero.

a[j] = sum_{k: r_k > j} w_k a_k[j] / sum_{k: r_k > j} w_k, and b[:, j] likewise. A rank index that nobody in the round
owns keeps its previous row and column.  Source: RBLA (Tian et al., 2024, arXiv 2408.08699).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.threads import threads_for
from fedloom.aggregation.bank import lift_padded, sum_name
from fedloom.aggregation.summand import Summand
from fedloom.aggregation.world import ClientFacts, Side


def lift_owned(adapter: Adapter, weight: float, facts: ClientFacts, sides: Sequence[Side] = ("a", "b")) -> Summand:
    """The padded factors (those of `sides`), and for each rank index the weight of those who own it."""
    return replace(lift_padded(adapter, weight, facts, sides), sums=owned(adapter, facts, "owners", weight))


def owned(adapter: Adapter, facts: ClientFacts, name: str, value: float) -> dict[str, Tensor]:
    """By the modules' names for `name`: the value at each rank index that the client owns. Shape: (largest rank,)."""
    marks: dict[tuple[int, int, torch.device], Tensor] = {}  # modules of equal ranks share them
    found: dict[str, Tensor] = {}
    for module, factors in adapter.items():
        key = (factors.rank, facts.world.max_rank(module), factors.a.device)
        if key not in marks:
            marks[key] = (torch.arange(key[1], device=key[2]) < key[0]).to(torch.float64) * value
        found[sum_name(module, name)] = marks[key]
    return found


def mean_over_owners(total: Summand, module: str, previous: Factors) -> Factors:
    """The bank's factors of one module."""
    return Factors(side_over_owners(total, module, "a", previous.a), side_over_owners(total, module, "b", previous.b))


def side_over_owners(total: Summand, module: str, side: Side, previous: Tensor) -> Tensor:
    """The bank's a or b of one module."""
    summed = total.sums[sum_name(module, side)]
    owners = total.sums[sum_name(module, "owners")].to(summed.dtype)
    owners = owners[:, None] if side == "a" else owners
    owned = owners > 0
    with threads_for(summed.numel()):
        if bool(owned.all()):
            return summed / owners
        return torch.where(owned, summed / torch.where(owned, owners, torch.ones_like(owners)), previous)
