"""Norm bounding: nobody's change counts more than a multiple of the median change.

share_k = min over p of min(1, ratio median_p / norm_{p,k}), with a norm for each respect p in which changes are
measured (delta, numbers that are added up, head). The median is over those that moved at all: half of the clients may
send what they began from.  Source: norm bounding (Sun et al., 2019, arXiv 1911.07963); the median as bound is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def shares(norms: Sequence[Sequence[float]], ratio: float) -> list[float]:
    """How much of its change each client keeps, in (0, 1]. norms: for each respect, one for each client."""
    clients = range(len(norms[0]) if norms else 0)
    bounds = [ratio * _middle(part) for part in norms]
    return [min(_share(part[k], bound) for part, bound in zip(norms, bounds, strict=True)) for k in clients]


def hostile(norms: Sequence[Sequence[float]], cosines: Sequence[float], ratio: float) -> list[bool]:
    """Who is longer than `ratio` medians in some respect and points away from the others.

    One of the two alone is no proof: a client whose unit is wrong sends what the others do, too long; one whose data
    differ points elsewhere, and is no longer than they are. cosines: of each client with what the others changed.
    """
    return [share < 1 and cosine < 0 for share, cosine in zip(shares(norms, ratio), cosines, strict=True)]


def _middle(norms: Sequence[float]) -> float:
    moved = [norm for norm in norms if norm > 0]
    return median(moved) if moved else 0.0


def _share(norm: float, bound: float) -> float:
    return 1.0 if norm <= bound else bound / norm
