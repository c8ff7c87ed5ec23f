"""A bound on clients' changes that follows what they send, by a count under noise that is part of the promise. Pure.

Of m clients (Andrew et al., 2021, arXiv 1905.03871, algorithm 1)

    share = 1/2 + (sum_k ([norm_k <= C] - 1/2) + sigma_b N(0, 1)) / m        C' = C exp(-rate (share - quantile))

share is held within 0 and 1, which costs no privacy, as it looks at nothing else.

The count has sensitivity 1/2. With sigma_b = max(m / 20, sigma) for it and sigma_s = (sigma^-2 - (2 sigma_b)^-2)^-1/2
for the sum, both together spend what the sum alone spends with sigma; sigma_s is at most 1.155 sigma.
"""

from __future__ import annotations

import math

RATE = 0.2  # of the bound's steps
COUNTED = 20  # clients for each one that the noise of their count stands for


def count_noise(clients: int, multiplier: float) -> float:
    """sigma_b. multiplier: sigma."""
    return max(clients / COUNTED, multiplier)


def beside_a_count(multiplier: float, counting: float) -> float:
    """sigma_s. multiplier: sigma.  counting: sigma_b; 0: nothing is counted, and sigma_s is sigma."""
    return (multiplier**-2 - (2 * counting) ** -2) ** -0.5 if counting else multiplier


def next_bound(bound: float, quantile: float, within: float, clients: int) -> float:
    """C'. within: the count of those whose norm was at most C, with its noise."""
    # No more than a share can be: much noise on few clients would carry the bound to 0 or beyond all numbers.
    share = min(max(within / clients, 0.0), 1.0)
    return bound * math.exp(-RATE * (share - quantile))
