"""How odd a client is, round by round.

z_k = max(|z(ln norm_k)|, -z(cosine_k), 0)        score_k <- DECAY score_k + (1 - DECAY) z_k

z is the robust z-score over the round's clients, cosine_k that with the geometric median of the others. Norms are in
logarithms, as those of clients with other ranks and data differ by factors; no change at all is as odd as a huge one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from fedloom.aggregation.robust.spread import robust_z

DECAY = 0.5
LEAST = 5  # clients of a round: among fewer, nobody can be told to be odd
NORM_FLOOR, COSINE_FLOOR = 0.25, 0.1  # differences below are nothing
NOTHING = 1e-3  # share of the median norm below which a change is none


def round_scores(norms: Sequence[float], cosines: Sequence[float]) -> list[float]:
    """z of every client; all 0 in a round of fewer than LEAST."""
    moved = [norm for norm in norms if norm > 0]
    if len(norms) < LEAST or not moved:
        return [0.0] * len(norms)
    least = NOTHING * median(moved)
    lengths = robust_z([math.log(max(norm, least)) for norm in norms], NORM_FLOOR)
    away = robust_z(cosines, COSINE_FLOOR)
    return [max(abs(length), -cosine, 0.0) for length, cosine in zip(lengths, away, strict=True)]


def averaged(earlier: Mapping[str, float], found: Mapping[str, float]) -> dict[str, float]:
    """client -> its score after a round; one that is new begins from 0."""
    return {client: DECAY * earlier.get(client, 0.0) + (1 - DECAY) * z for client, z in found.items()}
