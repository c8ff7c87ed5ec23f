"""How similar clients are, by the inner products of their deltas, and what follows from those alone.

G[k, m] = sum over modules of <delta_k, delta_m> = s_k s_m sum((b_k^T b_m) * (a_k a_m^T))
cosines[k, m] = G[k, m] / sqrt(G[k, k] G[m, m])
shares[k, m] = w_m <delta_m, R_k> / ((W - w_k) |R_k|^2) with R_k = sum_{m != k} w_m delta_m / (W - w_k)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.threads import each_on_a_thread
from fedloom.aggregation.rest_checks import check_adapters, check_weight
from fedloom.errors import AggregationError

BLOCK = 2**22  # inner products at once, 32 MB in float64
ROWS = 128  # at once: narrow enough to save nearly half of the products, wide enough to be fast
NOTHING = 1e-13  # share of the squared added lengths below which a squared length is rounding of float64


def gram(contributions: Mapping[str, Adapter]) -> tuple[tuple[str, ...], Tensor]:
    """The names in order, and the inner products of every two deltas, in float64 on the CPU. Shape: (K, K).

    A module that a client lacks has a zero delta. Nothing of a layer's size is built: the cost of a module is the
    square of the sum of its ranks times (out + in).
    Raises: AggregationError for shapes of one module that differ, and factors that are not finite.
    """
    check_adapters({f"client {client!r}": adapter for client, adapter in sorted(contributions.items())})
    names = tuple(sorted(contributions))
    modules = sorted({module for adapter in contributions.values() for module in adapter})

    def of_module(module: str) -> Tensor:
        parts = {
            place: contributions[name][module] for place, name in enumerate(names) if module in contributions[name]
        }
        return _gram_of(parts, len(names))

    total = torch.zeros(len(names), len(names), dtype=torch.float64)
    for products in each_on_a_thread(of_module, modules):
        total += products
    return names, total


def _gram_of(parts: Mapping[int, Factors], count: int) -> Tensor:
    """The inner products of one module's deltas, by the places of their clients."""
    a = torch.cat([part.a for part in parts.values()]).double()
    b = torch.cat([part.b.T.double() * part.scaling for part in parts.values()])
    owners = torch.tensor([place for place, part in parts.items() for _ in range(part.rank)])
    found = torch.zeros(count, count, dtype=torch.float64)
    for rows, later in _blocks(parts):
        products = ((b[rows] @ b[later].T) * (a[rows] @ a[later].T)).cpu()
        by_client = products.new_zeros(len(products), count).index_add_(1, owners[later], products)
        found.index_add_(0, owners[rows], by_client)
    return torch.triu(found) + torch.triu(found, 1).T


def _blocks(parts: Mapping[int, Factors]) -> Iterator[tuple[slice, slice]]:
    """Rows of whole clients, and with them all that follow: what is before them has had its products with them."""
    ends = [0]
    for part in parts.values():
        ends.append(ends[-1] + part.rank)
    first, most = 0, min(ROWS, BLOCK // max(1, ends[-1]))
    for start, end in pairwise(ends):
        if end - first > most and start > first:
            yield slice(first, start), slice(first, None)
            first = start
    yield slice(first, ends[-1]), slice(first, None)


def cosines(gram: Tensor) -> Tensor:
    """The cosines between deltas, from -1 to 1; a delta that is zero has 0 with all others. The diagonal is 1."""
    lengths = gram.diagonal().clamp_min(0.0).sqrt()
    inverse = torch.where(lengths > 0, 1 / lengths, 0.0)
    found = (gram * (inverse[:, None] * inverse)).clamp(-1.0, 1.0)
    return found.fill_diagonal_(1.0)


def shares(gram: Tensor, weights: Sequence[float], borrows: Tensor | None = None) -> Tensor:
    """How much of client k's rest of the world comes from client m: the part of R_k that m's delta projects onto it.

    Rows sum to 1; a share is negative where a delta points away from the rest, and others are then above 1 together.
    The diagonal is 0, as is the row of a client whose rest is zero. Weights are taken as those of all modules; where
    some clients lack a module, a rest that is a mean over those who have it differs.
    weights: positive, in the order of the Gram matrix.  borrows: whether k borrows from m at all; left out: all do from
    all others.  Shapes: (K, K).
    Raises: AggregationError for weights that are not positive and finite, or of another number.
    """
    if len(weights) != len(gram):
        raise AggregationError("each client needs a weight", expected=f"{len(gram)} weights", found=len(weights))
    w = torch.tensor([check_weight(one, f"weight {place}") for place, one in enumerate(weights)], dtype=gram.dtype)
    others = 1 - torch.eye(len(gram), dtype=gram.dtype)
    others = others if borrows is None else others * borrows
    weighed = gram * (w / w.max()) * (w / w.max())[:, None]
    towards = (others @ weighed) * others  # [k, m]: <w_m delta_m, R_k>, as a sum without k: no digits are lost
    squares = towards.sum(1)
    added = others @ weighed.diagonal().clamp_min(0.0).sqrt()
    there = squares > NOTHING * added.square()
    return torch.where(there[:, None], towards / torch.where(there, squares, 1.0)[:, None], 0.0)


@dataclass(frozen=True)
class Merge:
    """Two groups of clients that become one. cosine: the mean over pairs with one client in each."""

    left: tuple[str, ...]
    right: tuple[str, ...]
    cosine: float

    @property
    def members(self) -> tuple[str, ...]:
        """All clients of the new group, such that those of every group in it stand together."""
        return self.left + self.right


def clusters(cosines: Tensor, names: Sequence[str]) -> tuple[Merge, ...]:
    """The tree of average linkage, as its merges from the most similar on; the last one holds all clients.

    Of equal cosines the pair whose names come first merges first. None for a single client.
    Source: Sokal and Michener (1958); the means of a new group as Lance and Williams (1967).
    """
    groups: list[tuple[str, ...]] = [(name,) for name in names]
    mean = ((cosines + cosines.T).double() / 2).fill_diagonal_(-torch.inf)
    merges = []
    for _ in range(len(names) - 1):
        left, right = divmod(int(mean.argmax()), len(names))  # the first of equals
        merges.append(Merge(groups[left], groups[right], float(mean[left, right])))
        sizes = len(groups[left]), len(groups[right])
        row = (sizes[0] * mean[left] + sizes[1] * mean[right]) / sum(sizes)
        mean[left], mean[:, left] = row, row
        mean[right], mean[:, right] = -torch.inf, -torch.inf
        mean[left, left], groups[left] = -torch.inf, merges[-1].members
    return tuple(merges)
