"""The singular value decomposition of deltas that are thinner than their layers, by Gram matrices.

What is small is float64: squaring costs half of the digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedloom.adapters.factors import Factors

GRAM_ROUNDING = 1e-15  # share of the largest eigenvalue of a Gram matrix below which one is rounding of float64
WELL_CONDITIONED = 1e9  # bound on the condition of a Gram matrix up to which its Cholesky factor is as good as needed
STEEP = 1e-4  # share of the largest singular value; above it, eigenvectors are orthogonal to the digits of float32
GRAM_BLOCK = 64  # rows: narrow enough to save nearly half of the products, wide enough to be fast
CANCELLING = 10.0  # length of the parts of a vector of length 1 from which float32 loses a digit that counts


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The singular value decomposition of a delta: u @ diag(s) @ v.

    Shapes: u (out, n), s (n,) descending, v (n, in); columns of u and rows of v are orthonormal.
    """

    u: Tensor
    s: Tensor
    v: Tensor

    def leading(self, count: int) -> Spectrum:
        """The strongest `count` directions."""
        return Spectrum(self.u[:, :count], self.s[:count], self.v[:count])

    def significant(self, tolerance: float) -> Spectrum:
        """The directions with s > tolerance * s[0]; none of a delta that is zero."""
        return self.leading(int((self.s > tolerance * self.s[:1]).sum()))

    def factors(self, scaling: float = 1.0) -> Factors:
        """a = v and b = u s / scaling, so that the rows of a are orthonormal."""
        return Factors(self.v, self.u * (self.s / scaling), scaling)


def thin_spectra(batch: Sequence[Factors], tolerance: float) -> list[Spectrum]:
    """The spectra of factors of one rank. In between: (batch, rank, rank).

    Formula: with a^T inverse_a orthonormal (`_roots` of a a^T), v = V inverse_a^T a and u = b left, left and V by
    eigenvectors; of steep ones by the decomposition of root_b root_a^T = U S V, left = inverse_b U.
    """
    gram_b = torch.stack([gram(factors.b.T) for factors in batch])
    gram_a = torch.stack([gram(factors.a) for factors in batch])
    lengths = [products.diagonal(dim1=-2, dim2=-1).sqrt() for products in (gram_b, gram_a)]
    balance = _balance(*lengths)
    root_a, inverse_a = _roots(gram_a, torch.where(balance > 0, 1 / balance, balance))
    found = _by_eigenvectors(gram_b, balance, root_a)
    if found is None:
        root_b, inverse_b = _roots(gram_b, balance)
        u, s, v = torch.linalg.svd(root_b @ root_a.mT)
        found = inverse_b @ u, s, v
    left, s, right = found[0], found[1], found[2] @ inverse_a.mT
    pairs = zip(*lengths, strict=True)
    return [_tall(*parts, tolerance) for parts in zip(batch, pairs, left, s, right, strict=True)]


def _by_eigenvectors(gram_b: Tensor, balance: Tensor, root_a: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """left, s, V with u = b left, for deltas whose s is not steep: twice as fast as by `svd`. None: it is steep.

    Formula: root_a (balance gram_b balance) root_a^T = W L W^T, V = W^T, s = L^1/2, left = balance root_a^T W / s, so
    that b left s V is exact, and columns i and j of u are orthogonal to rounding of float64 * s[0]^2 / (s[i] s[j]).
    """
    balanced = balance[..., :, None] * root_a.mT
    values, vectors = torch.linalg.eigh(balanced.mT @ gram_b @ balanced)
    values, vectors = values.flip(-1), vectors.flip(-1)
    if not bool((values[..., -1:] > STEEP**2 * values[..., :1]).all()):
        return None
    s = values.sqrt()
    return balanced @ (vectors / s[..., None, :]), s, vectors.mT


def gram(rows: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Inner products; in float64, as squaring costs half of the digits. Blocks below the diagonal are mirrored."""
    wide = rows.to(dtype)
    if len(rows) <= GRAM_BLOCK:
        return wide @ wide.T
    gram = wide.new_empty(len(rows), len(rows))
    for first in range(0, len(rows), GRAM_BLOCK):
        block = slice(first, first + GRAM_BLOCK)
        products = wide[block] @ wide[first:].T
        gram[block, first:], gram[first:, block] = products, products.T
    return gram


def _balance(lengths_b: Tensor, lengths_a: Tensor) -> Tensor:
    """t such that the columns of b t and the rows of a / t are equally long; 0 where a column or a row is zero."""
    there = (lengths_b > 0) & (lengths_a > 0)
    return torch.where(there, lengths_a / lengths_b, 0.0).sqrt()


def _roots(gram: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Of tall x with this Gram matrix: x inverse is orthonormal, and x inverse root = x scale.

    Formula: with l the lengths of the columns of x, (1/l) gram (1/l) = R^T R (Cholesky), root = R l scale and
    inverse = (1/l) R^-1; for columns that are nearly dependent see `_eigen_roots`, ten times slower.
    """
    lengths = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    upper, failed = torch.linalg.cholesky_ex(gram / (lengths[..., :, None] * lengths[..., None, :]), upper=True)
    if not bool(failed.any()):
        identity = torch.eye(upper.shape[-1], dtype=upper.dtype, device=upper.device)
        inverse = torch.linalg.solve_triangular(upper, identity.expand_as(upper), upper=True)
        if bool((upper.shape[-1] * inverse.square().sum((-2, -1)) < WELL_CONDITIONED).all()):
            return upper * (lengths * scale)[..., None, :], inverse / lengths[..., :, None]
    return _eigen_roots(scale[..., :, None] * gram * scale[..., None, :], scale)


def _eigen_roots(scaled: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The same for x of any rank, from scaled = scale gram scale.

    Formula: scaled = W L W^T, root = L^1/2 W^T, inverse = scale W L^-1/2; directions in which x has no length are zero.
    """
    values, vectors = torch.linalg.eigh(scaled)
    kept = values > GRAM_ROUNDING * values[..., -1:]
    lengths = torch.where(kept, values, 0.0).sqrt()
    inverse = torch.where(kept, 1 / lengths, 0.0)
    return lengths[..., :, None] * vectors.mT, scale[..., :, None] * vectors * inverse[..., None, :]


def _tall(
    factors: Factors, lengths: tuple[Tensor, Tensor], left: Tensor, s: Tensor, right: Tensor, tolerance: float
) -> Spectrum:
    """u = b left and v = right a for the directions that count, in the precision of the factors.

    lengths: of the columns of b and of the rows of a.
    """
    strengths = s * abs(factors.scaling)
    count = int((strengths > tolerance * strengths[:1]).sum())
    sign = -1.0 if factors.scaling < 0 else 1.0
    left, right = sign * left[:, :count], right[:count]
    of_u, of_v = (_precision_of(factors, *pair) for pair in zip(lengths, (left, right.T), strict=True))
    u, v = factors.b.to(of_u) @ left.to(of_u), right.to(of_v) @ factors.a.to(of_v)
    return Spectrum(*(part.to(factors.a.dtype) for part in (u, strengths[:count], v)))


def _precision_of(factors: Factors, lengths: Tensor, weights: Tensor) -> torch.dtype:
    """In what to compute columns @ weights, vectors of length 1: float64 if they are differences of longer ones."""
    parts = lengths[:, None] * weights
    return factors.a.dtype if bool((parts.norm(dim=0) < CANCELLING).all()) else torch.float64
