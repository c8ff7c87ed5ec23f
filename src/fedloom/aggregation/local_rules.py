"""What a method asks of a client's training besides the loss: penalties, pruned ranks, and how a head is trained.

Values only: they travel to the client, and training computes them without knowing any method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

HeadOptimizer = Literal["adamw", "layerwise"]  # `training.layerwise` has the formula and the reason


@dataclass(frozen=True)
class Penalty:
    """A term that is added to the loss of every step, a sum over modules.

    proximal: strength / 2 * |delta - delta at the start|^2.
        Source: FedProx (Li et al., 2020, arXiv 1812.06127), equation 2, on the delta.
    tail: strength * |b[:, k:]| * |a[k:]| with k = kept_rank(rank, share).
        Source: HetLoRA (Cho et al., 2024, arXiv 2401.06432), section 3.
    Norms are Frobenius norms.
    """

    kind: Literal["proximal", "tail"]
    strength: float
    share: float = 1.0


@dataclass(frozen=True)
class LocalRules:
    """penalties: added to the loss.  prune: share of a rank that stays if its tail shrank in training; None: never.
    head_optimizer: of a classifier's head, unless the user names one."""

    penalties: tuple[Penalty, ...] = ()
    prune: float | None = None
    head_optimizer: HeadOptimizer = "adamw"


def layerwise_heads(settings: Any) -> LocalRules:
    """The rule of methods that ask for nothing but a head that one step size moves."""
    return LocalRules(head_optimizer="layerwise")


def kept_rank(rank: int, share: float) -> int:
    """floor(share * rank), and at least 1."""
    return max(1, math.floor(share * rank))
