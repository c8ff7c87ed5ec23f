"""The server half of an inspection: how different clients are, by their portraits alone. Pure.

p_k: client k's shares, its counts over their sum (counts below zero, which noise can make, count as 0)
distance[k, m] = sqrt(H((p_k + p_m) / 2) - (H(p_k) + H(p_m)) / 2), H in bits: 0 (the same) to 1 (nothing in common)
score = (H(sum_k w_k p_k) - sum_k w_k H(p_k)) / H(w),  w_k: k's share of all counts
By the score, what a row's label (or words) takes away of the doubt whose row it is: 0 nothing, 1 all of it.
by chance = (K - 1)(B - 1) / (2 N ln 2 H(w)): about what equal clients would have, as samples differ.
Source: Lin (1991); the bias of entropies: Miller (1955).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fedloom.errors import FedLoomError
from fedloom.rounds.portrait import Portrait


@dataclass(frozen=True)
class Comparison:
    """All clients side by side, in the order given.

    distances: K x K.  score, by_chance: 0 to 1.  shared: pairs of clients -> rows that both have; None where
        nobody looked.
    """

    portraits: tuple[Portrait, ...]
    distances: tuple[tuple[float, ...], ...]
    score: float
    by_chance: float
    shared: Mapping[tuple[str, str], int] | None

    @property
    def clients(self) -> tuple[str, ...]:
        return tuple(portrait.client for portrait in self.portraits)


def compared(portraits: Sequence[Portrait]) -> Comparison:
    """Raises: FedLoomError for no portraits, two of one client, or such as do not count the same things."""
    _check(portraits)
    counts = np.array([[max(0, count) for count in one.counts] for one in portraits], dtype=np.float64)
    weights = counts.sum(1) / max(1.0, counts.sum())
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1.0)
    return Comparison(
        portraits=tuple(portraits),
        distances=tuple(tuple(_distance(one, other) for other in shares) for one in shares),
        score=_score(shares, weights),
        by_chance=_by_chance(counts, weights),
        shared=_shared(portraits),
    )


def _check(portraits: Sequence[Portrait]) -> None:
    if not portraits:
        raise FedLoomError("there are no clients to compare")
    twice = [client for client, times in Counter(one.client for one in portraits).items() if times > 1]
    if twice:
        raise FedLoomError("two portraits of one client", where=f"client {twice[0]!r}")
    first = portraits[0]
    for one in portraits:
        if (one.kind, one.names, one.epsilon) != (first.kind, first.names, first.epsilon):
            raise FedLoomError(
                "the portraits cannot be compared",
                where=f"client {one.client!r}",
                expected=f"{len(first.names)} {first.kind}, epsilon {first.epsilon}, as of {first.client!r}",
                found=f"{len(one.names)} {one.kind}, epsilon {one.epsilon}",
            )


def _entropy(shares: np.ndarray) -> float:
    """In bits."""
    some = shares[shares > 0]
    return float(-(some * np.log2(some)).sum())


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """0 where one of them has nothing to compare."""
    if np.array_equal(one, other) or not one.any() or not other.any():
        return 0.0
    divergence = _entropy((one + other) / 2) - (_entropy(one) + _entropy(other)) / 2
    return math.sqrt(min(1.0, max(0.0, divergence)))


def _score(shares: np.ndarray, weights: np.ndarray) -> float:
    whole = _entropy(weights)
    if whole == 0 or all(np.array_equal(one, shares[0]) for one in shares):
        return 0.0
    own = sum(weight * _entropy(one) for weight, one in zip(weights, shares, strict=True))
    return min(1.0, max(0.0, (_entropy(weights @ shares) - own) / whole))


def _by_chance(counts: np.ndarray, weights: np.ndarray) -> float:
    whole, used = _entropy(weights), int((counts.sum(0) > 0).sum())
    if whole == 0 or used < 2:
        return 0.0
    clients = int((counts.sum(1) > 0).sum())
    return min(1.0, (clients - 1) * (used - 1) / (2 * counts.sum() * math.log(2) * whole))


def _shared(portraits: Sequence[Portrait]) -> dict[tuple[str, str], int] | None:
    if any(one.repeated is None for one in portraits):
        return None
    pairs = ((one, other, len(one.fingerprints & other.fingerprints)) for one, other in combinations(portraits, 2))
    return {(one.client, other.client): both for one, other, both in pairs if both}
