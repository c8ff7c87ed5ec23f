"""Lengths and distances between clients' changes, from their inner products alone.

    G = sum over p of diag(c) G_p diag(c) / median_k(c_k^2 G_p[k, k])

G_p holds the inner products in one respect (deltas; heads), c the shares that clipping leaves. Each respect counts as
much as its median change: a head of small numbers is as good a place to hide something in as a delta.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor

from fedloom.aggregation.similarity import cosines


def combined(grams: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """G. Shapes: (K, K), float64. A respect in which nobody changed anything adds nothing."""
    kept = torch.tensor(shares, dtype=torch.float64)
    total = torch.zeros(len(shares), len(shares), dtype=torch.float64)
    for gram in grams:
        clipped = gram * kept * kept[:, None]
        moved = [square for square in clipped.diagonal().tolist() if square > 0]
        total += clipped / median(moved) if moved else 0.0
    return total


def norms(gram: Tensor) -> list[float]:
    """The length of each change."""
    return gram.diagonal().clamp_min(0.0).sqrt().tolist()


def squared_distances(gram: Tensor) -> Tensor:
    """|x_i - x_j|^2, shape (K, K)."""
    squares = gram.diagonal()
    return (squares[:, None] + squares - 2 * gram).clamp_min(0.0).fill_diagonal_(0.0)


def cosines_to_the_others(gram: Tensor, weights: Sequence[float]) -> list[float]:
    """The cosine of each change with the weighted sum of all other ones; 0 where one of the two is zero.

    weights: of the sum, such as those of the geometric median.
    """
    w = torch.tensor(weights, dtype=gram.dtype)
    own = gram.diagonal()
    towards = (gram - torch.diag(own)) @ w
    squares = w @ gram @ w - 2 * w * towards - w.square() * own
    lengths = (own.clamp_min(0.0) * squares.clamp_min(0.0)).sqrt()
    found = torch.where(lengths > 0, towards / torch.where(lengths > 0, lengths, 1.0), 0.0)
    return found.clamp(-1.0, 1.0).tolist()


def median_cosines(gram: Tensor) -> list[float]:
    """The median of each change's cosines with the other ones; 0 for one that is alone."""
    table = cosines(gram).tolist()
    others = [[value for j, value in enumerate(row) if j != k] for k, row in enumerate(table)]
    return [median(row) if row else 0.0 for row in others]
