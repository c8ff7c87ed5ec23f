"""Krum: the client whose change is nearest to those of the clients around it.

score_k = sum of the n - f - 2 smallest |x_k - x_j|^2, j != k.  Krum keeps the smallest score, multi-krum the n - f
smallest.  Source: Blanchard et al. (2017, arXiv 1703.02757); f of n >= 2 f + 3 may be malicious.
"""

from __future__ import annotations

import torch
from torch import Tensor


def scores(squared_distances: Tensor, max_bad: int) -> list[float]:
    """score_k of every client. Shape: (K, K), with a zero diagonal."""
    count = len(squared_distances)
    away = squared_distances.clone().fill_diagonal_(torch.inf).sort(dim=1).values
    return away[:, : max(1, count - max_bad - 2)].sum(dim=1).tolist() if count > 1 else [0.0] * count


def kept(squared_distances: Tensor, max_bad: int, count: int) -> list[int]:
    """The places of the `count` smallest scores, in order of the clients; of equal scores the first ones."""
    found = scores(squared_distances, max_bad)
    return sorted(sorted(range(len(found)), key=lambda k: found[k])[:count])
