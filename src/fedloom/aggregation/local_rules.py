"""What a method asks of a client's training besides the loss: penalties, and whether ranks are pruned.

Values only: they travel to the client, and training computes them without knowing any method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


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
    """penalties: added to the loss.  prune: share of a rank that stays if its tail shrank in training; None: never."""

    penalties: tuple[Penalty, ...] = ()
    prune: float | None = None


def kept_rank(rank: int, share: float) -> int:
    """floor(share * rank), and at least 1."""
    return max(1, math.floor(share * rank))
