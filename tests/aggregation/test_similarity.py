"""Who resembles whom, against deltas that are written out."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation import similarity
from fedloom.aggregation.rest_of_world import leave_one_out
from fedloom.aggregation.similarity import clusters, cosines, gram, shares
from fedloom.errors import AggregationError

SHAPES = {"first": (7, 12), "second": (12, 5)}
quick = settings(max_examples=40, deadline=None)


def adapter_of(seed, ranks):
    draws = torch.Generator().manual_seed(seed)
    made = {}
    for module, rank in ranks.items():
        out, inputs = SHAPES[module]
        a, b = torch.randn(rank, inputs, generator=draws), torch.randn(out, rank, generator=draws)
        made[module] = Factors(a, b, 0.5 + seed % 3)
    return Adapter(made)


@st.composite
def contributions(draw, least=1):
    """Clients of unequal ranks, some without a module, or without any."""
    ranks = st.dictionaries(st.sampled_from(sorted(SHAPES)), st.integers(1, 15))
    chosen = draw(st.lists(ranks, min_size=least, max_size=7))
    return {f"c{place}": adapter_of(place, one) for place, one in enumerate(chosen)}


def flat(adapter):
    """The oracle: all deltas of a client in one vector, zeros where it has none."""
    found = []
    for module, shape in SHAPES.items():
        part = adapter.get(module)
        whole = torch.zeros(shape, dtype=torch.float64)
        found.append((whole if part is None else part.scaling * part.b.double() @ part.a.double()).flatten())
    return torch.cat(found)


@quick
@given(contributions(), st.sampled_from([1, 5, 128]))
def test_gram_holds_the_inner_products_of_the_deltas_whatever_the_blocks(some, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "ROWS", block)
        names, found = gram(some)
    vectors = torch.stack([flat(some[name]) for name in names])
    wanted = vectors @ vectors.T
    assert names == tuple(sorted(some))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()) + 1e-12)
    assert torch.equal(found, found.T)


def test_gram_refuses_what_is_not_comparable():
    one = Adapter({"first": Factors(torch.ones(1, 3), torch.ones(2, 1))})
    other = Adapter({"first": Factors(torch.ones(1, 2), torch.ones(3, 1))})
    with pytest.raises(AggregationError, match=r"client 'b', module 'first'"):
        gram({"a": one, "b": other})


def test_cosines_are_of_deltas_not_of_factors_and_0_of_a_zero_delta():
    one = adapter_of(1, {"first": 3})
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4)))[0]
    same = one.map(lambda _, f: Factors(turn @ f.a, f.b @ turn.T, f.scaling * 7))
    zero = one.map(lambda _, f: Factors(f.a, torch.zeros_like(f.b)))
    opposite = one.map(lambda _, f: f.scaled(-2.0))
    _, products = gram({"a": one, "b": same, "c": opposite, "d": zero})
    wanted = torch.tensor([[1, 1, -1, 0], [1, 1, -1, 0], [-1, -1, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(cosines(products), wanted, rtol=0, atol=1e-6)
    assert cosines(products).abs().max() <= 1


@quick
@given(contributions(least=2), st.lists(st.sampled_from([0.5, 1.0, 7.0, 1e6]), min_size=7, max_size=7))
def test_shares_are_projections_onto_the_rest_and_rows_sum_to_one(some, weights):
    names, products = gram(some)
    found = shares(products, weights[: len(names)])
    vectors = [flat(some[name]) for name in names]
    for k in range(len(names)):
        others = [m for m in range(len(names)) if m != k]
        whole = math.fsum(weights[m] for m in others)
        rest = sum(weights[m] * vectors[m] for m in others) / whole
        square = float(rest.square().sum())
        assert found[k, k] == 0
        if square == 0:
            assert not found[k].any()
            continue
        wanted = [weights[m] * float(vectors[m] @ rest) / (whole * square) for m in others]
        torch.testing.assert_close(found[k, others], torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=1e-6)
        assert float(found[k].sum()) == pytest.approx(1.0, abs=1e-6)


def test_shares_are_those_of_the_rest_that_clients_get():
    some = {name: adapter_of(seed, {"first": 2, "second": 3}) for seed, name in enumerate("abcd")}
    weights = {"a": 1.0, "b": 5.0, "c": 2.0, "d": 9.0}
    rest = leave_one_out(some, weights, {"c": {"first": 20, "second": 20}}, "exact")["c"].adapter
    names, products = gram(some)
    found = shares(products, [weights[name] for name in names])[2]
    square = float(flat(rest).square().sum())
    wanted = [0 if n == "c" else weights[n] * float(flat(some[n]) @ flat(rest)) / (15 * square) for n in names]
    assert found.tolist() == pytest.approx(wanted, abs=1e-5)


def test_a_rest_that_cancels_belongs_to_nobody():
    one = adapter_of(1, {"first": 3})
    _, products = gram({"a": one, "b": one.map(lambda _, f: f.scaled(-1.0)), "c": adapter_of(2, {"first": 1})})
    found = shares(products, [1.0, 1.0, 1.0])
    assert not found[2].any()
    assert found[0].any()


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, math.nan]])
def test_shares_need_positive_weights(weights):
    with pytest.raises(AggregationError):
        shares(torch.eye(2, dtype=torch.float64), weights)


def by_hand(matrix, names):
    """The oracle: the mean over all pairs, for every two groups, before every merge."""
    groups, merges = [(name,) for name in names], []
    place = {name: number for number, name in enumerate(names)}
    while len(groups) > 1:
        means = {
            (i, j): math.fsum(matrix[place[a]][place[b]] for a in groups[i] for b in groups[j])
            / (len(groups[i]) * len(groups[j]))
            for i in range(len(groups))
            for j in range(i + 1, len(groups))
        }
        i, j = max(means, key=lambda pair: means[pair])
        merges.append((groups[i], groups[j], means[i, j]))
        groups[i] = groups[i] + groups.pop(j)
    return merges


@quick
@given(st.integers(1, 9), st.integers(0, 9999))
def test_clusters_merge_by_the_mean_over_pairs(count, seed):
    vectors = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    matrix, names = cosines(vectors @ vectors.T), [f"c{place}" for place in range(count)]
    before = matrix.clone()
    found = clusters(matrix, names)
    wanted = by_hand(matrix.tolist(), names)
    assert [(one.left, one.right) for one in found] == [(left, right) for left, right, _ in wanted]
    assert [one.cosine for one in found] == pytest.approx([mean for _, _, mean in wanted])
    assert torch.equal(matrix, before)


def test_of_equal_pairs_the_first_by_place_merges_first():
    merges = clusters(torch.ones(4, 4), ["d", "b", "c", "a"])
    assert [(one.left, one.right) for one in merges] == [
        (("d",), ("b",)),
        (("d", "b"), ("c",)),
        (("d", "b", "c"), ("a",)),
    ]
    assert merges[-1].members == ("d", "b", "c", "a")
