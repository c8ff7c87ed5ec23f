"""Robust rules against an oracle that writes every delta out in float64, and what no attacker may bring about."""

import itertools
import math
from statistics import mean, median

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.robust import clipping, geometric_median, geometry, krum, outliers
from fedloom.aggregation.robust.anomaly import averaged, round_scores
from fedloom.aggregation.robust.judge import Evidence, judged
from fedloom.aggregation.robust.trimmed import trimmed_mean
from fedloom.aggregation.similarity import gram
from fedloom.errors import AggregationError

SHAPES = {"first": (6, 9), "second": (9, 4)}
RULES = ["none", "cosine", "krum", "multi-krum", "geometric-median"]
few = settings(max_examples=12, deadline=None)
seeds = st.integers(0, 10**6)


def clients(seed, count=9, huge=()):
    """Deltas around a common one, of ranks 1 to 4; those in `huge` are something else, and large."""
    draws = torch.Generator().manual_seed(seed)
    common = {module: torch.randn(shape, generator=draws) for module, shape in SHAPES.items()}
    found = {}
    for number in range(count):
        factors = {}
        for module, (out, inputs) in SHAPES.items():
            b = torch.randn(out, 1 + number % 4, generator=draws)
            a = torch.linalg.lstsq(b, common[module]).solution + 0.2 * torch.randn(b.shape[1], inputs, generator=draws)
            factors[module] = Factors(a, b * (-1000.0 if number in huge else 1.0), 2.0)
        found[f"c{number}"] = Adapter(factors)
    return found


def dense(adapters):
    """Every delta in one row, in float64."""
    return torch.stack(
        [
            torch.cat([(f.scaling * f.b.double() @ f.a.double()).flatten() for _, f in sorted(adapters[name].items())])
            for name in sorted(adapters)
        ]
    )


def evidence_of(adapters, weights=None):
    names, products = gram(adapters)
    return Evidence(names, (tuple(geometry.norms(products)),), (products,), tuple(weights or [1.0] * len(names)))


def oracle(rule, x, weights, ratio, bad):
    """(shares, factors) from written-out deltas, by the definitions."""
    lengths = x.norm(dim=1)
    shares = (ratio * median(lengths.tolist()) / lengths).clamp(max=1.0)
    y = x * shares[:, None]
    apart = torch.cdist(y, y)
    count = len(x)
    factors = torch.ones(count, dtype=torch.float64)
    if rule in ("krum", "multi-krum"):
        scores = [
            sum(sorted(d**2 for j, d in enumerate(row) if j != i)[: count - bad - 2])
            for i, row in enumerate(apart.tolist())
        ]
        kept = sorted(range(count), key=lambda i: scores[i])[: 1 if rule == "krum" else count - bad]
        factors = torch.tensor([float(i in kept) for i in range(count)])
    elif rule == "geometric-median":
        z = (y * weights[:, None]).sum(0) / weights.sum()
        for _ in range(3000):
            pull = weights / (y - z).norm(dim=1).clamp_min(1e-12)
            z = (y * pull[:, None]).sum(0) / pull.sum()
        factors = pull / pull.sum() * weights.sum() / weights
    elif rule == "cosine":
        unit = y / y.norm(dim=1, keepdim=True)
        middle = [median((unit @ unit.T)[i, [j for j in range(count) if j != i]].tolist()) for i in range(count)]
        spread = max(1.4826 * median(abs(m - median(middle)) for m in middle), 0.1)
        out = sorted((i for i in range(count) if (median(middle) - middle[i]) / spread > 3), key=lambda i: middle[i])
        factors = torch.tensor([float(i not in out[:bad]) for i in range(count)])
    return shares.tolist(), factors.tolist()


@pytest.mark.parametrize("rule", RULES)
@few
@given(seeds, st.integers(1, 3))
def test_a_rule_is_what_its_definition_gives_on_written_out_deltas(rule, seed, bad):
    adapters = clients(seed, huge=range(bad))
    weights = torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.5
    found = judged(evidence_of(adapters, weights.tolist()), rule, 2.0, bad)
    shares, factors = oracle(rule, dense(adapters), weights, 2.0, bad)
    assert list(found.shares.values()) == pytest.approx(shares, rel=1e-6)
    assert list(found.factors.values()) == pytest.approx(factors, rel=1e-4, abs=1e-6)
    assert found.dropped == [f"c{k}" for k, factor in enumerate(factors) if factor == 0]
    if rule in ("krum", "multi-krum", "geometric-median"):
        assert mean(factors[:bad]) < 0.8 * mean(factors[bad:]), "those who attack count less than the others"


@pytest.mark.parametrize("rule", RULES)
@few
@given(seeds)
def test_who_is_far_too_long_and_points_away_is_left_out_as_if_it_had_not_come(rule, seed):
    """The rules say of the others what they say without it, one bad client fewer; only its length is in the median."""
    adapters = clients(seed, huge=(4,))
    found = judged(evidence_of(adapters), rule, 1e6, 2, drop_ratio=5.0)
    alone = judged(evidence_of({name: one for name, one in adapters.items() if name != "c4"}), rule, 1e6, 1)
    assert found.factors["c4"] == 0
    assert [found.factors[name] for name in alone.factors] == pytest.approx(list(alone.factors.values()), rel=1e-5)
    assert "c4" in found.dropped


def test_only_who_is_both_too_long_and_against_the_others_is_hostile():
    norms, cosines = [[1, 1, 1, 6, 6, 1]], [0.5, 0.5, 0.5, 0.5, -0.5, -0.5]
    assert clipping.hostile(norms, cosines, 5.0) == [False, False, False, False, True, False]
    assert clipping.hostile([*norms, [1, 1, 1, 1, 1, 9]], cosines, 5.0)[5]
    assert not any(clipping.hostile(norms, cosines, 7.0))


@pytest.mark.parametrize("rule", RULES)
@few
@given(seeds)
def test_who_comes_first_does_not_matter(rule, seed):
    adapters = clients(seed, huge=(2,))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed)).tolist()
    renamed = {f"c{order[k]}": adapters[f"c{k}"] for k in range(9)}
    one, other = (judged(evidence_of(some), rule, 2.0, 1) for some in (adapters, renamed))
    for key in ("shares", "factors", "scores", "cosines"):
        first, second = getattr(one, key), getattr(other, key)
        assert [second[f"c{order[k]}"] for k in range(9)] == pytest.approx(
            [first[f"c{k}"] for k in range(9)], rel=1e-5, abs=1e-6
        )


@pytest.mark.parametrize("rule", RULES)
@few
@given(seeds)
def test_how_a_delta_is_factored_does_not_matter(rule, seed):
    """(b M)(M^-1 a) is the same delta, as are more factors than it needs."""
    adapters, draws = clients(seed, huge=(4,)), torch.Generator().manual_seed(seed)

    def otherwise(factors):
        rank = factors.rank
        mixed = torch.eye(rank, dtype=torch.float64) * 3 + 0.3 * torch.randn(rank, rank, generator=draws).double()
        a, b = torch.linalg.solve(mixed, factors.a.double()), factors.b.double() @ mixed * factors.scaling
        return Factors(torch.cat([a, a]), torch.cat([1.5 * b, -0.5 * b], dim=1))

    again = {name: Adapter({m: otherwise(f) for m, f in adapter.items()}) for name, adapter in adapters.items()}
    one, other = (judged(evidence_of(some), rule, 2.0, 1) for some in (adapters, again))
    for key in ("shares", "factors", "scores"):
        assert list(getattr(other, key).values()) == pytest.approx(list(getattr(one, key).values()), rel=1e-3, abs=1e-4)


@few
@given(seeds, st.integers(1, 4), st.sampled_from([1.0, 1e3, 1e6]))
def test_fewer_than_half_cannot_move_the_geometric_median_beyond_its_bound(seed, bad, size):
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn(9, 12, generator=draws, dtype=torch.float64)
    x[:bad] = size * torch.randn(bad, 12, generator=draws, dtype=torch.float64) + size
    w = torch.tensor(geometric_median.weights(x @ x.T, [1.0] * 9), dtype=torch.float64)
    honest, share = x[bad:], bad / 9
    centre = honest.mean(0)
    radius = float((honest - centre).norm(dim=1).max())
    assert float((w @ x - centre).norm()) <= 2 * (1 - share) / (1 - 2 * share) * radius * (1 + 1e-3)
    assert float(w.sum()) == pytest.approx(1)


def test_the_mean_goes_where_the_median_does_not():
    x = torch.zeros(5, 2, dtype=torch.float64)
    x[0] = torch.tensor([1e4, 0.0])
    x[1:] += torch.tensor([[0.0, 1.0], [0.0, -1.0], [1.0, 0.0], [-1.0, 0.0]])
    w = torch.tensor(geometric_median.weights(x @ x.T, [1.0] * 5), dtype=torch.float64)
    assert float((w @ x).norm()) < 1.0 < 1e3 < float(x.mean(0).norm())


@few
@given(seeds, st.floats(1e-3, 1e6))
def test_clipping_bounds_everyone_by_the_median_and_leaves_the_others_alone(seed, size):
    lengths = (torch.rand(7, generator=torch.Generator().manual_seed(seed)) + 0.5).tolist()
    lengths[3] *= size
    kept = clipping.shares([lengths], 2.0)
    bound = 2 * median(lengths)
    assert all(share * length <= bound * (1 + 1e-12) for share, length in zip(kept, lengths, strict=True))
    assert all(share == 1 for share, length in zip(kept, lengths, strict=True) if length <= bound)


def test_the_oddest_respect_bounds_and_idle_clients_do_not_lower_the_median():
    assert clipping.shares([[1, 1, 1, 8], [1, 10, 1, 1]], 2.0) == [1, 0.2, 1, 0.25]
    assert clipping.shares([[0, 0, 0, 1, 1]], 2.0) == [1] * 5
    assert clipping.shares([[0, 0]], 2.0) == [1, 1]


def test_a_respect_counts_as_its_median_and_not_by_its_unit():
    one, other = torch.diag(torch.tensor([1.0, 4.0, 9.0])).double(), torch.eye(3).double()
    together = geometry.combined([one, 1e6 * other], [1.0, 1.0, 1.0])
    assert torch.allclose(together, one / 4 + other)
    assert torch.equal(geometry.combined([one, 0 * other], [1.0, 0.5, 0.1]).diagonal() > 0, torch.ones(3).bool())


def test_krum_keeps_a_client_of_the_crowd():
    points = torch.tensor([[0.0], [1.0], [2.0], [4.0], [50.0], [51.0]], dtype=torch.float64)
    apart = (points - points.T) ** 2
    assert krum.scores(apart, 1) == [21, 11, 9, 29, 46**2 + 48**2 + 1, 47**2 + 49**2 + 1]
    assert krum.kept(apart, 1, 1) == [2]
    assert krum.kept(apart, 2, 4) == [0, 1, 2, 3]


def test_at_most_as_many_point_away_as_may_be_bad():
    cosines = [0.5, 0.5, 0.52, 0.48, 0.5, -0.5, -0.9, -0.7]
    assert outliers.dropped(cosines, 1) == [6]
    assert outliers.dropped(cosines, 2) == [6, 7]
    assert outliers.dropped([0.05, -0.02, 0.0, 0.03, -0.05], 2) == [], "data that differ are no attack"


@few
@given(seeds, st.integers(1, 3))
def test_a_trimmed_mean_stays_among_the_honest_in_every_number(seed, bad):
    draws = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(3, 4, generator=draws) for _ in range(7)]
    wild = [1e9 * torch.randn(3, 4, generator=draws) if k < bad else tensor for k, tensor in enumerate(tensors)]
    found, honest = trimmed_mean(wild, bad), torch.stack(wild[bad:])
    assert bool(((found >= honest.min(0).values) & (found <= honest.max(0).values)).all())
    by_hand = [
        sum(sorted(float(t[i, j]) for t in wild)[bad : 7 - bad]) / (7 - 2 * bad)
        for i, j in itertools.product(range(3), range(4))
    ]
    assert found.flatten().tolist() == pytest.approx(by_hand, rel=1e-5, abs=1e-6)


def test_a_trimmed_mean_of_too_few_or_of_other_shapes_is_refused():
    with pytest.raises(AggregationError, match="at least 3 of one shape, found 2"):
        trimmed_mean([torch.zeros(2), torch.zeros(2)], 1)
    with pytest.raises(AggregationError, match="2 shapes"):
        trimmed_mean([torch.zeros(2), torch.zeros(2), torch.zeros(3)], 1)
    same = torch.tensor([0.1, 1 / 3])
    assert torch.equal(trimmed_mean([same] * 5, 1), same)


@pytest.mark.parametrize(
    ("norms", "cosines", "odd"),
    [
        ([1, 1.2, 0.8, 1.1, 100], [0.6, 0.5, 0.7, 0.6, 0.6], True),
        ([1, 1.2, 0.8, 1.1, 0], [0.6, 0.5, 0.7, 0.6, 0.0], True),
        ([1, 1.2, 0.8, 1.1, 1], [0.6, 0.6, 0.7, 0.6, -0.6], True),
        ([1, 1.2, 0.8, 1.1, 2.5], [0.6, 0.5, 0.7, 0.6, 0.2], False),
        ([1, 1.2, 0.8, 100], [0.6, 0.5, 0.7, 0.6], False),
    ],
    ids=["large", "idle", "opposite", "other data", "too few to tell"],
)
def test_scores_tell_attacks_from_other_data(norms, cosines, odd):
    scores = round_scores(norms, cosines)
    assert (scores[-1] > 6) == odd
    assert max(scores[:-1]) < 6


def test_scores_are_averaged_over_rounds():
    assert averaged({"a": 8.0, "gone": 3.0}, {"a": 4.0, "new": 4.0}) == {"a": 6.0, "new": 2.0}


def test_the_cosine_to_the_others_leaves_oneself_out():
    x = torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    w = [0.5, 0.2, 0.2, 0.1]
    found = geometry.cosines_to_the_others(x @ x.T, w)
    for k in range(3):
        rest = sum(w[j] * x[j] for j in range(4) if j != k)
        assert found[k] == pytest.approx(float(x[k] @ rest / x[k].norm() / rest.norm()))
    assert found[3] == 0
    assert not math.isnan(found[3])
