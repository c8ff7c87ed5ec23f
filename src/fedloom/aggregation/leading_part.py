"""A sum of weighted deltas of one module, less one of them, and the part of it of a given rank that is nearest to it.

    T = sum_m w_m s_m b_m a_m        M_k = T - w_k s_k b_k a_k        b a = U_r U_r^T M_k, or M_k V_r V_r^T

All is float64, in coordinates that all clients share: b_m = Q_b left_m and a_m = right_m Q_a, bases of the stacked
factors, while those are thinner than the layer; then the layer's own. So a client costs one decomposition of a matrix
that is never wider than the layer's smaller side, however many others there are.
Source: Eckart and Young (1936); FedALT (Bian et al., 2025, arXiv 2503.11880) for whose sum it is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedloom.adapters.factors import Factors
from fedloom.adapters.thin import gram

DOMINATED = 1e-3  # share of the whole below which the others are added anew: a difference would lose their digits
ROUNDING = 1e-11  # share of the added lengths below which a direction of a difference in float64 is rounding
FAINT = 1e-8  # share of the strongest direction below which another is rounding of a Gram matrix in float64


@dataclass(frozen=True, eq=False)
class Leading:
    """The factors of a limited rank nearest to a delta; squares: of the delta, and of what they leave out."""

    factors: Factors
    square: float
    lost_square: float


def of_the_others(values: Mapping[str, float], whole: float, client: str) -> float:
    """whole - the client's value, where whole is the sum of all; added anew where the client has nearly all of it, as
    at most one can."""
    rest = whole - values.get(client, 0.0)
    if rest >= DOMINATED * whole:
        return rest
    return math.fsum(value for name, value in values.items() if name != client)


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """The weighted deltas of one module and their sum, in common coordinates.

    lefts: client -> (p, rank), weight and scaling in it.  rights: client -> (rank, q).  total (p, q).
    lengths: client -> Frobenius norm of its weighted delta; length: their sum.
    bases: (out, p) and (q, in), orthonormal; None: p, q are the layer's own out and in.
    """

    lefts: Mapping[str, Tensor]
    rights: Mapping[str, Tensor]
    lengths: Mapping[str, float]
    length: float
    total: Tensor
    bases: tuple[Tensor, Tensor] | None

    def without(self, client: str) -> tuple[Tensor, float]:
        """The sum of the others (p, q), and of their lengths."""
        if client not in self.lefts:
            return self.total, self.length
        rest = of_the_others(self.lengths, self.length, client)
        if rest >= DOMINATED * self.length:
            return self.total - self.lefts[client] @ self.rights[client], rest
        return self.only([name for name in self.lefts if name != client])

    def only(self, clients: Collection[str]) -> tuple[Tensor, float]:
        """The sum of these (p, q), and of their lengths."""
        return _product(self.lefts, self.rights, clients), math.fsum(self.lengths[name] for name in clients)

    def leading(self, matrix: Tensor, rank: int, rounding: float, factor: float) -> Leading:
        """factor times the matrix (p, q) at its best rank, rows of a orthonormal, float32.

        rounding: length up to which a direction is none. A matrix of no other becomes one direction of length 0.
        """
        left, right = _nearest(matrix, rank)
        lengths = left.norm(dim=0)
        count = max(1, int((lengths > max(rounding, FAINT * float(lengths[0]))).sum()))
        nothing = float(lengths[0]) <= rounding
        left, right = left[:, :count] * (0.0 if nothing else 1.0), right[:count]
        square = 0.0 if nothing else factor**2 * float(matrix.square().sum())
        lost = 0.0 if nothing else factor**2 * float((matrix - left @ right).square().sum())
        if self.bases is not None:
            left, right = self.bases[0] @ left, right @ self.bases[1]
        return Leading(Factors(right.float(), (factor * left).float()).contiguous(), square, lost)


def weighted_sum(parts: Mapping[str, Factors], weights: Mapping[str, float]) -> WeightedSum:
    """The sum of weight times delta over clients, of one layer's shape."""
    lefts = {name: part.b.double() * (weights[name] * part.scaling) for name, part in parts.items()}
    rights = {name: part.a.double() for name, part in parts.items()}
    ranks = [part.rank for part in parts.values()]
    bases = None
    if sum(ranks) < min(next(iter(parts.values())).shape):
        basis_b, all_left = torch.linalg.qr(torch.cat(list(lefts.values()), dim=1))
        basis_a, all_right = torch.linalg.qr(torch.cat(list(rights.values())).T)
        bases = basis_b, basis_a.T
        lefts = dict(zip(parts, all_left.split(ranks, dim=1), strict=True))
        rights = dict(zip(parts, all_right.T.split(ranks), strict=True))
    lengths = {name: _length(lefts[name], rights[name]) for name in parts}
    total = _product(lefts, rights, list(parts))
    return WeightedSum(lefts, rights, lengths, math.fsum(lengths.values()), total, bases)


def _product(lefts: Mapping[str, Tensor], rights: Mapping[str, Tensor], clients: Collection[str]) -> Tensor:
    return torch.cat([lefts[name] for name in clients], dim=1) @ torch.cat([rights[name] for name in clients])


def _length(left: Tensor, right: Tensor) -> float:
    return math.sqrt(max(0.0, float(((left.T @ left) * (right @ right.T)).sum())))


def _nearest(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """left (p, n) and right (n, q) of the n <= rank strongest directions; rows of right are orthonormal.

    Eigenvectors of the Gram matrix of the smaller side, and what the matrix itself makes of them: directions are as
    good as float64 allows where they count, and their product is a projection of the matrix whatever they are.
    """
    if matrix.shape[0] >= matrix.shape[1]:
        vectors = _leading_vectors(gram(matrix.T), rank)
        return matrix @ vectors, vectors.T
    vectors = _leading_vectors(gram(matrix), rank)
    right = vectors.T @ matrix
    lengths = right.norm(dim=1)
    return vectors * lengths, right / lengths.clamp_min(torch.finfo(lengths.dtype).tiny)[:, None]


def _leading_vectors(products: Tensor, rank: int) -> Tensor:
    return torch.linalg.eigh(products).eigenvectors.flip(-1)[:, :rank]
