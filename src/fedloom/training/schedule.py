"""The learning rate over a whole run."""

from __future__ import annotations

import math

from fedloom.rounds.messages import LocalWork


def rate_factor(work: LocalWork, step: int) -> float:
    """The share of the peak rate for the optimizer step `step` (from 0) of a round.

    Formula: with t = first_step + step, T = total_steps and W = warmup T: (t + 1) / (W + 1) while t < W; then 1,
    1 - p or (1 + cos(pi p)) / 2 with p = (t - W) / (T - W).
    """
    at, total = work.first_step + step, max(work.total_steps, 1)
    warm = work.warmup * total
    if at < warm:
        return (at + 1) / (warm + 1)
    progress = min((at - warm) / max(total - warm, 1e-9), 1.0)
    return {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[work.schedule]
