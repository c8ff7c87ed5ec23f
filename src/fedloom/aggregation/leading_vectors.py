"""The leading right singular vectors of a matrix that differs from a known one by a few directions.

    M = T - l r        r (n, q); v_1 .. v_w lead T, and w = count + n + SPARE

To a vector that is orthogonal to these v and to the rows of r, M does what T does, which is at most T's singular
value w + 1. In the span of the v at least count + SPARE directions are orthogonal to r, and to each of them M does no
less. So nothing that leads M is out of sight of the v and r together, and block Krylov from there, M^T M again and
again, finds it in two to four steps. If it does not, all vectors are computed, which is what it saves.
Source: Golub and Underwood (1977); Musco and Musco (NeurIPS 2015) for what a few steps miss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedloom.adapters.thin import gram

SPARE = 8  # known vectors beyond those that are sought
STEPS = 4  # blocks at most
NARROW = 4  # times as wide as the first block a matrix must be: else all vectors take no longer
MISSED = 1e-5  # share of the squares that the best rank leaves out, by which ours may leave out more
ROUNDING = 1e-14  # share of all squares: what float64 cannot tell
APART = 1e-9  # of vectors of length 1, up to which two blocks are orthogonal


def all_vectors(matrix: Tensor, count: int) -> Tensor:
    """Shapes: matrix (p, q), and (q, count at most): orthonormal columns, the strongest first."""
    return torch.linalg.eigh(gram(matrix.T)).eigenvectors.flip(-1)[:, :count]


def worthwhile(side: int, rows: int, count: int) -> bool:
    """Whether a matrix with a smaller side like this is wide enough for `known_vectors` to save anything."""
    return NARROW * (count + 2 * rows + SPARE) <= side


def known_vectors(matrix: Tensor, known: Tensor, rows: Tensor, count: int) -> Tensor:
    """The same, found from the leading vectors of another matrix, whose difference to this one has these rows.

    Shapes: matrix (p, q), known (q, count + n + SPARE at least), rows (n, q).
    """
    start = torch.cat([known[:, : count + len(rows) + SPARE], rows.T], dim=1)
    found = _by_krylov(matrix, torch.linalg.qr(start).Q, count)
    return all_vectors(matrix, count) if found is None else found


def _by_krylov(matrix: Tensor, block: Tensor, count: int) -> Tensor | None:
    """None: not found in so many steps, or not surely.

    What is still missed is taken from how fast the gains shrink: gain * rate / (1 - rate).
    """
    whole, basis, images = float(matrix.square().sum()), block, matrix @ block
    found, captured = _strongest(images, count)
    last_gain = float("inf")
    for _ in range(STEPS - 1):
        block = _orthogonal(matrix.T @ (images @ found), basis)
        if float((basis.T @ block).abs().max()) > APART:
            return None
        basis, images = torch.cat([basis, block], dim=1), torch.cat([images, matrix @ block], dim=1)
        found, now = _strongest(images, count)
        gain, captured = max(0.0, now - captured), now
        rate = gain / last_gain if last_gain > 0 else 0.0
        missed = gain * rate / (1 - rate) if 0 < rate < 1 else gain
        if missed <= MISSED * max(0.0, whole - captured) + ROUNDING * whole:
            return basis @ found[:, :count]
        last_gain = gain
    return None


def _strongest(images: Tensor, count: int) -> tuple[Tensor, float]:
    """Which combinations of the columns are longest, count + SPARE of them, and the squares of the first `count`."""
    values, vectors = torch.linalg.eigh(images.T @ images)
    return vectors.flip(-1)[:, : count + SPARE], float(values[-count:].sum())


def _orthogonal(block: Tensor, basis: Tensor) -> Tensor:
    """Orthonormal columns for the block's part outside the basis; twice, as once leaves rounding."""
    for _ in range(2):
        block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
    return block
