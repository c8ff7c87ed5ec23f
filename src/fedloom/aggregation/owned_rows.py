"""The mean of each rank index over the other clients that own it: padding means missing, not zero.

    a[j] = (S_a[j] - w_k a_k[j]) / (O[j] - w_k)        S_a[j] = sum_{m: r_m > j} w_m a_m[j], O[j] = sum_{m: r_m > j} w_m

b[:, j] likewise, with the scaling folded in.  Source: FedALT (Bian et al., 2025, arXiv 2503.11880), whose server takes
(S - own) / (K - 1) of a and of b; of unequal ranks as RBLA (Tian et al., 2024, arXiv 2408.08699).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedloom.adapters.factors import Factors
from fedloom.aggregation.leading_part import DOMINATED

ALONE = 1e-9  # share of a total weight up to which what is left after subtracting a client is rounding: nobody else


@dataclass(frozen=True, eq=False)
class OwnedSums:
    """Sums over the owners of each rank index, float64.

    a (rank, in): of weight times row.  b (out, rank): of weight * scaling times column.  owners (rank,): of weights.
    """

    a: Tensor
    b: Tensor
    owners: Tensor

    def less(self, own: Factors, weight: float) -> OwnedSums:
        """The sums without one client, who is in them."""
        rank = min(own.rank, len(self.owners))
        a, b, owners = self.a.clone(), self.b.clone(), self.owners.clone()
        a[:rank].sub_(own.a[:rank].double(), alpha=weight)
        b[:, :rank].sub_(own.b[:, :rank].double(), alpha=weight * own.scaling)
        owners[:rank].sub_(weight)
        return OwnedSums(a, b, owners)

    def first(self, rank: int) -> OwnedSums:
        """Those of the leading rank indices."""
        return OwnedSums(self.a[:rank], self.b[:, :rank], self.owners[:rank])

    def means(self) -> Factors:
        """The means over the owners, float32, scaling 1; every rank index must have one."""
        owners = self.owners
        return Factors((self.a / owners[:, None]).float(), (self.b / owners).float()).contiguous()


def owned_sums(parts: Mapping[str, Factors], weights: Mapping[str, float]) -> OwnedSums:
    """The sums over clients of one layer's shape, as wide as the widest of them."""
    rank = max(part.rank for part in parts.values())
    (outputs, inputs), device = next(iter(parts.values())).shape, next(iter(parts.values())).a.device

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=device)

    a, b, owners = zeros(rank, inputs), zeros(outputs, rank), zeros(rank)
    for name, part in parts.items():
        a[: part.rank].add_(part.a.double(), alpha=weights[name])
        b[:, : part.rank].add_(part.b.double(), alpha=weights[name] * part.scaling)
        owners[: part.rank].add_(weights[name])
    return OwnedSums(a, b, owners)


def means_without(
    whole: OwnedSums, parts: Mapping[str, Factors], weights: Mapping[str, float], client: str, rank: int
) -> Factors:
    """The means of the first `rank` indices over the others, all of which some other client owns.

    One who has nearly all the weight of an index is left out of the sums rather than taken off them, as a difference
    would lose the others' digits; an index has at most one such, so that the cost stays linear in clients.
    """
    if client not in parts:
        return whole.first(rank).means()
    own = parts[client]
    common = min(rank, own.rank)
    if bool((whole.owners[:common] - weights[client] >= DOMINATED * whole.owners[:common]).all()):
        return whole.first(rank).less(own, weights[client]).means()
    others = {name: part for name, part in parts.items() if name != client}
    return owned_sums(others, weights).first(rank).means()
