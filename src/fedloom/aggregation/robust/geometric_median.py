"""The geometric median of changes, as weights: it lies in their span, so that inner products are all that it needs.

z = argmin_z sum_k alpha_k |z - x_k| = sum_k w_k x_k. Weiszfeld's iteration, smoothed:

    d_k^2 = (w - e_k)^T G (w - e_k)        w_k <- alpha_k / max(d_k, nu) / sum_j (alpha_j / max(d_j, nu))

It is moved by less than 2 (1 - s) / (1 - 2 s) times the largest distance of an honest change from their centre,
whatever clients of a share s < 1/2 of the weight send.  Source: RFA (Pillutla et al., 2019, arXiv 1912.13445), which
smooths it so; the bound: Minsker (2015), lemma 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

STEPS = 1000  # at most; a median that is one of the points is approached slowly
SMOOTHING = 1e-6  # nu, as a share of the median distance at the beginning
SETTLED = 1e-10  # change of the weights, summed, at which it ends


def weights(gram: Tensor, alphas: Sequence[float]) -> list[float]:
    """w, which sums to 1. alphas: positive, what each client counts.  Shape: (K, K)."""
    alpha = torch.tensor(alphas, dtype=torch.float64)
    w = alpha = alpha / alpha.sum()
    nu = SMOOTHING * float(_distances(gram, w).median())
    for _ in range(STEPS):
        pulls = alpha / _distances(gram, w).clamp_min(nu).clamp_min(1e-300)
        step = pulls / pulls.sum()
        settled = float((step - w).abs().sum()) < SETTLED
        w = step
        if settled:
            break
    return w.tolist()


def _distances(gram: Tensor, w: Tensor) -> Tensor:
    """|x_k - sum_j w_j x_j| of every client."""
    apart = w - torch.eye(len(w), dtype=w.dtype)
    return ((apart @ gram) * apart).sum(dim=1).clamp_min(0.0).sqrt()
