"""How much each module matters: what clients measured, put together by sums alone and smoothed over rounds.

Given, in a round:

    v_m        share of module m in all importance so far, sum 1; before anything was measured 1 / number of modules
    M_k        modules that client k trains;  w_k its weight in the means
    e_km >= 0  what client k measured of module m in M_k (`training.sensitivity`), in units of its loss

    sent by the client      s_km = T_k e_km / sum_{j in M_k} e_kj,      T_k = sum_{j in M_k} v_j
    in the round            c_m = sum_k w_k s_km / sum_k w_k,           both sums over the clients that scored m
    after it                v'_m = keep v_m + (1 - keep) c_m,           then divided by its sum

Both sums are sums over clients and nothing else, so a secure sum carries them, and as s_km <= T_k <= 1, in fixed point.
Scaling each client's scores makes clients comparable whose losses are not. To a sum of T_k, and not of 1: else a client
that trains only two modules would call each of them half of everything. As it is, a client says how the importance that
its modules have together is divided among them, and where clients share modules, their ratios carry over.

A module that nobody scored in a round keeps its share. One that nobody ever scored is taken for the mean of those that
somebody did: it is neither pushed nor ruled out. `Importance.assumed` names these.

Ours: FedPipe (arXiv 2404.06448) combines importance over clients too, but no formula of it was available to us.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

KEEP = 0.5  # of what was known before a round: clients and their few samples differ a lot from round to round


@dataclass(frozen=True)
class ScoreSum:
    """sum_k w_k s_km and sum_k w_k, by module, over the clients that scored it."""

    scores: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    def plus(self, scores: Mapping[str, float], weight: float) -> ScoreSum:
        """With one more client. scores: s_km; empty for a client that measured nothing."""
        more = {module: self.scores.get(module, 0.0) + weight * score for module, score in scores.items()}
        weights = {module: self.weights.get(module, 0.0) + weight for module in scores}
        return ScoreSum({**self.scores, **more}, {**self.weights, **weights})

    def means(self) -> dict[str, float]:
        """c_m of the modules that somebody scored; within 0 and 1, as nobody can see what is wrong in a secure sum."""
        return {
            module: min(max(self.scores[module] / weight, 0.0), 1.0)
            for module, weight in self.weights.items()
            if weight > 0
        }


@dataclass(frozen=True)
class Importance:
    """shares: v_m of every module, sum 1.  assumed: modules that nobody ever scored, in sorted order."""

    shares: Mapping[str, float]
    assumed: tuple[str, ...] = ()

    @property
    def measured(self) -> dict[str, float]:
        """Shares of the modules that somebody scored."""
        return {module: share for module, share in self.shares.items() if module not in self.assumed}

    def of(self, modules: Iterable[str]) -> float:
        """T_k of a client that trains these."""
        return math.fsum(self.shares.get(module, 0.0) for module in modules)


def unknown(modules: Collection[str]) -> Importance:
    """Before anything was measured: all modules matter alike."""
    return Importance(dict.fromkeys(sorted(modules), 1 / max(len(modules), 1)), tuple(sorted(modules)))


def scaled(scores: Mapping[str, float], total: float) -> dict[str, float]:
    """s_km: the scores with this sum. Empty for scores that are all zero, as they tell nothing."""
    found = math.fsum(scores.values())
    return {module: total * (score / found) for module, score in scores.items()} if found > 0 else {}


def combined(summed: ScoreSum, previous: Importance) -> Importance:
    """The importance after a round. The modules are those of `previous`; scores of others are left out."""
    before, found = previous.measured, summed.means()
    merged = smoothed(before, {module: share for module, share in found.items() if module in previous.shares})
    if not math.fsum(merged.values()) > 0:
        return previous
    mean = fmean(merged.values())
    shares = {module: merged.get(module, mean) for module in previous.shares}
    total = math.fsum(shares.values())
    assumed = tuple(sorted(shares.keys() - merged.keys()))
    return Importance({module: share / total for module, share in shares.items()}, assumed)


def smoothed(previous: Mapping[str, float], new: Mapping[str, float], keep: float = KEEP) -> dict[str, float]:
    """keep x previous + (1 - keep) x new; a module that one of the two lacks has the other's value."""
    both = previous.keys() & new.keys()
    mixed = {module: keep * previous[module] + (1 - keep) * new[module] for module in both}
    return {**previous, **new, **mixed}
