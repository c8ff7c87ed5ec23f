"""Clients that point away from the others, by their median cosine with them.

z_k = (median_j m_j - m_k) / max(1.4826 MAD_j(m_j), FLOOR), m_k the median cosine of client k with the others. Those
with z_k > LIMIT are dropped, the worst first, at most `max_bad`: cosines of honest clients whose data differ are small,
but much alike. The rule is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedloom.aggregation.robust.spread import robust_z

LIMIT = 3.0
FLOOR = 0.1  # of a cosine: below it a difference is nothing


def dropped(median_cosines: Sequence[float], max_bad: int) -> list[int]:
    """The places of those who are dropped, in order of the clients."""
    away = [-z for z in robust_z(median_cosines, FLOOR)]
    worst = sorted((k for k, z in enumerate(away) if z > LIMIT), key=lambda k: -away[k])
    return sorted(worst[:max_bad])
