"""What a rule makes of a round: how much of its change each client keeps, and what becomes of its weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fedloom.aggregation.robust import clipping, geometric_median, geometry, krum, outliers
from fedloom.aggregation.robust.anomaly import round_scores


@dataclass(frozen=True)
class Evidence:
    """What is known of the changes of a round's clients, in the order of `names`.

    norms: in each respect, one for each client.  grams: inner products in those respects that have some.
    weights: what each client counts, positive.
    """

    names: tuple[str, ...]
    norms: tuple[tuple[float, ...], ...]
    grams: tuple[Tensor, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Judgement:
    """client -> how much of its change it keeps (shares), what its weight is multiplied by (factors; 0: dropped), and
    how odd it is in this round (scores, as of `anomaly`)."""

    shares: dict[str, float]
    factors: dict[str, float]
    scores: dict[str, float]
    cosines: dict[str, float]

    @property
    def dropped(self) -> list[str]:
        return sorted(name for name, factor in self.factors.items() if factor == 0)


def judged(evidence: Evidence, rule: str, ratio: float | None, max_bad: int, drop_ratio: float = 0.0) -> Judgement:
    """The judgement of one round. rule: one of `RobustRule`.  ratio: of norms to their median; None: no bound.

    drop_ratio: to the median, above which who points away from the others is left out (see `clipping.hostile`); 0:
    nobody is. The rules judge those who remain, of whom so many fewer are bad.
    trimmed-mean, which makes no weights, leaves them as they are (see `trimmed`). Scores are of norms before clipping.
    """
    names, count = evidence.names, len(evidence.names)
    shares = [1.0] * count if ratio is None else clipping.shares(evidence.norms, ratio)
    gram = geometry.combined(evidence.grams, shares)
    # Always clipped for this: one that is huge would take the digits of all others.
    near = geometry.combined(evidence.grams, clipping.shares(evidence.norms, 1.0))
    middle = geometric_median.weights(near, evidence.weights)
    cosines = geometry.cosines_to_the_others(near, middle)
    # A client is as odd as its oddest respect.
    scores = [max(z) for z in zip(*(round_scores(norms, cosines) for norms in evidence.norms), strict=True)]
    hostile = clipping.hostile(evidence.norms, cosines, drop_ratio) if drop_ratio else [False] * count
    factors = _factors_without(hostile, gram, evidence.weights, rule, max_bad)
    return Judgement(
        shares=dict(zip(names, shares, strict=True)),
        factors=dict(zip(names, factors, strict=True)),
        scores=dict(zip(names, scores, strict=True)),
        cosines=dict(zip(names, cosines, strict=True)),
    )


def _factors_without(
    hostile: Sequence[bool], gram: Tensor, weights: Sequence[float], rule: str, max_bad: int
) -> list[float]:
    """0 for those who are hostile, and for the others what the rule says of them alone."""
    rest = [k for k, bad in enumerate(hostile) if not bad]
    found = dict.fromkeys(range(len(hostile)), 0.0)
    among = _factors(gram[rest][:, rest], [weights[k] for k in rest], rule, max(0, max_bad - sum(hostile)))
    found.update(zip(rest, among, strict=True))
    return [*found.values()]


def _factors(gram: Tensor, weights: Sequence[float], rule: str, max_bad: int) -> list[float]:
    count = len(weights)
    if rule in ("krum", "multi-krum"):
        most = 1 if rule == "krum" else count - max_bad
        kept = krum.kept(geometry.squared_distances(gram), max_bad, most)
        return [float(k in kept) for k in range(count)]
    if rule == "cosine":
        without = outliers.dropped(geometry.median_cosines(gram), max_bad)
        return [float(k not in without) for k in range(count)]
    if rule == "geometric-median":
        total = sum(weights)
        return [w * total / own for w, own in zip(geometric_median.weights(gram, weights), weights, strict=True)]
    return [1.0] * count
