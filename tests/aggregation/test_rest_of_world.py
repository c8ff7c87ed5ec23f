"""The others without oneself, against dense float64 sums of the others."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.rest_of_world import neighbours, without_own, without_own_factors
from fedloom.errors import AggregationError
from tests.aggregation.others import SHAPES, Clients, best_of_rank, clients, dense, factors_of

ROUNDING = 1e-5
quick = settings(max_examples=40, deadline=None)


def assert_exact(given, among=None):
    for client, rest in given.rests("exact", among).items():
        mine = None if among is None else among[client]
        wanted = {
            m: given.mean_of_others(client, m, mine) for m in given.ranks[client] if given.others(client, m, mine)
        }
        assert set(rest.adapter) == set(wanted)
        lost = square = 0.0
        for module, matrix in wanted.items():
            rank, found = given.ranks[client][module], rest.adapter[module]
            assert 1 <= found.rank <= rank
            best, size = best_of_rank(matrix, rank), float(matrix.norm())
            got = float((dense(found) - matrix).norm())
            assert got == pytest.approx(float((best - matrix).norm()), abs=ROUNDING * size)
            lost, square = lost + got**2, square + size**2
        assert rest.error == pytest.approx(math.sqrt(lost / square) if square else 0.0, abs=ROUNDING)


@quick
@given(clients())
def test_exact_is_the_best_rank_of_the_mean_of_the_others(some):
    assert_exact(some)


@quick
@given(clients(), st.sets(st.sampled_from(["c0", "c1", "c3", "nobody"])))
def test_exact_among_those_that_were_chosen(some, chosen):
    assert_exact(some, dict.fromkeys(some.ranks, chosen))


def assert_factors(given, among=None):
    for client, rest in given.rests("factors", among).items():
        mine = None if among is None else among[client]
        assert rest.error == 0.0
        assert set(rest.adapter) == {m for m in given.ranks[client] if given.others(client, m, mine)}
        for module, found in rest.adapter.items():
            a, b = given.means_of_rows(client, module, mine)
            assert found.scaling == 1.0
            torch.testing.assert_close(found.a.double(), a, rtol=ROUNDING, atol=ROUNDING)
            torch.testing.assert_close(found.b.double(), b, rtol=ROUNDING, atol=ROUNDING)


@quick
@given(clients())
def test_factors_are_the_means_over_the_others_that_own_an_index(some):
    assert_factors(some)


@quick
@given(clients(), st.sets(st.sampled_from(["c0", "c1", "c3", "nobody"])))
def test_factors_among_those_that_were_chosen(some, chosen):
    assert_factors(some, dict.fromkeys(some.ranks, chosen))


def of(weights, rank=20, shape=(8, 10), **adapters):
    ranks = {name: {"m": rank} for name in adapters}
    return Clients({name: Adapter({"m": part}) for name, part in adapters.items()}, weights, ranks)


COMBINATIONS = pytest.mark.parametrize("combine", ["exact", "factors"])


@COMBINATIONS
def test_one_client_has_no_rest_and_of_two_each_has_the_other(combine):
    one, other = factors_of(1, (8, 10), 2), factors_of(2, (8, 10), 3)
    alone = of({"a": 2.0}, a=one).rests(combine)["a"]
    assert len(alone.adapter) == 0
    assert alone.error == 0.0
    both = of({"a": 2.0, "b": 5.0}, a=one, b=other).rests(combine)
    torch.testing.assert_close(dense(both["a"].adapter["m"]), dense(other), rtol=0, atol=1e-5)
    torch.testing.assert_close(dense(both["b"].adapter["m"]), dense(one), rtol=0, atol=1e-5)


@COMBINATIONS
def test_a_newcomer_gets_the_mean_of_all(combine):
    part = factors_of(1, (8, 10), 2)
    given = of({"a": 2.0, "b": 6.0}, a=part, b=part)
    given.ranks = {"new": {"m": 2, "never": 4}}
    rest = given.rests(combine)
    assert set(rest) == {"new"}
    assert set(rest["new"].adapter) == {"m"}
    torch.testing.assert_close(dense(rest["new"].adapter["m"]), dense(part), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 10), (10, 8), (80, 90)])
def test_contributions_that_cancel_leave_a_rest_of_zero_that_is_there(shape):
    part, third = factors_of(1, shape, 2), factors_of(2, shape, 3)
    rests = of(dict.fromkeys("abc", 1.0), shape=shape, a=part, b=part.scaled(-1.0), c=third).rests("exact")
    assert rests["c"].adapter["m"].rank == 1
    assert not dense(rests["c"].adapter["m"]).any()
    assert rests["c"].error == 0.0
    torch.testing.assert_close(dense(rests["a"].adapter["m"]), (dense(third) - dense(part)) / 2, rtol=0, atol=1e-4)


def test_deltas_that_are_zero_stay_zero():
    zero = Factors(torch.ones(2, 10), torch.zeros(8, 2))
    rests = of({"a": 1.0, "b": 2.0, "c": 3.0}, a=zero, b=zero, c=zero).rests("exact")
    assert all(not dense(rest.adapter["m"]).any() and rest.error == 0.0 for rest in rests.values())


@COMBINATIONS
def test_one_client_that_outweighs_all_others_leaves_them_their_digits(combine):
    parts = {name: factors_of(seed, (8, 10), 2) for seed, name in enumerate("abc")}
    given = of({"a": 1e18, "b": 1.0, "c": 2.0}, **parts)
    given.contributions["a"] = Adapter({"m": parts["a"].scaled(1e6)})
    rest = given.rests(combine)["a"]
    {"exact": assert_exact, "factors": assert_factors}[combine](given)
    if combine == "exact":
        assert float(dense(rest.adapter["m"]).norm()) == pytest.approx(float(given.mean_of_others("a", "m").norm()))


def test_many_clients_whose_ranks_exceed_the_layer():
    for shape in ((30, 44), (44, 30), (20, 20), (120, 90), (90, 120)):
        parts = {f"c{seed}": factors_of(seed, shape, 1 + seed % 7) for seed in range(30)}
        given = of({name: 1.0 + place for place, name in enumerate(parts)}, shape=shape, **parts)
        given.ranks = {name: {"m": 5} for name in ("c0", "c17", "c29", "new")}
        assert_exact(given)
        assert_factors(given)


def test_the_error_is_what_the_rank_leaves_out():
    rests = of({"a": 1.0, "b": 1.0}, rank=1, a=factors_of(1, (8, 10), 2), b=factors_of(2, (8, 10), 4)).rests("exact")
    strengths = torch.linalg.svdvals(dense(factors_of(2, (8, 10), 4)))
    assert rests["a"].error == pytest.approx(float(strengths[1:].norm() / strengths.norm()), rel=1e-6)
    assert rests["a"].error > 0.1


@COMBINATIONS
def test_same_input_same_bits_whatever_the_order_and_the_threads(combine):
    parts = {f"c{seed}": factors_of(seed, (30, 40), 4) for seed in range(12)}
    given = of(dict.fromkeys(parts, 3.0), rank=6, shape=(30, 40), **parts)
    back = of(dict.fromkeys(reversed(parts), 3.0), rank=6, shape=(30, 40), **dict(reversed(parts.items())))
    threads = torch.get_num_threads()
    first = given.rests(combine)
    try:
        torch.set_num_threads(1)
        second = back.rests(combine)
    finally:
        torch.set_num_threads(threads)
    assert {name: rest.adapter.digest() for name, rest in first.items()} == {
        name: rest.adapter.digest() for name, rest in second.items()
    }
    for rest in first.values():
        for factors in rest.adapter.values():
            assert factors.a.is_contiguous()
            assert factors.b.is_contiguous()
            assert factors.a.dtype == torch.float32


@COMBINATIONS
@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf, None])
def test_weights_must_be_positive_and_finite(combine, weight):
    part = factors_of(1, (8, 10), 2)
    with pytest.raises(AggregationError, match="weight of client 'b'"):
        of({"a": 1.0, "b": weight}, a=part, b=part).rests(combine)


@COMBINATIONS
def test_refusals_name_client_and_module(combine):
    part, weights = factors_of(1, (8, 10), 2), {"a": 1.0, "b": 1.0}
    with pytest.raises(AggregationError, match=r"client 'b', module 'm'.*as of client 'a'"):
        of(weights, a=part, b=factors_of(1, (10, 8), 2)).rests(combine)
    with pytest.raises(AggregationError, match=r"client 'b', module 'm'.*finite"):
        of(weights, a=part, b=Factors(part.a * math.nan, part.b)).rests(combine)
    with pytest.raises(AggregationError, match=r"client 'a', module 'm'.*found 0"):
        of(weights, rank=0, a=part, b=part).rests(combine)
    with pytest.raises(AggregationError, match="client 'b'"):
        of(weights, a=part, b=part).rests(combine, {"a": ["b"]})
    with pytest.raises(AggregationError, match="no such way"):
        of(weights, a=part, b=part).rests("both")


@quick
@given(clients())
def test_a_client_that_knows_the_mean_finds_its_own_rest(some):
    """The client's half gives what the server would have given it, up to the rounding of a float32 mean."""
    for module in SHAPES:
        others = some.others(None, module)
        if not others:
            continue
        whole = math.fsum(some.weights[name] for name in others)
        mean = some.mean_of_others(None, module).float()
        total = Adapter({module: Factors(mean, torch.eye(mean.shape[0]))})
        for client in [*others, "newcomer"]:
            own_weight, own = some.weights.get(client, 0.0), some.contributions.get(client, Adapter())
            rest = without_own(total, {module: whole}, own, own_weight, {module: 4})
            if others == [client]:
                assert module not in rest.adapter
            elif own_weight < 0.9 * whole:
                wanted = some.mean_of_others(client, module)
                lost = float((best_of_rank(wanted, 4) - wanted).norm())
                scale = float(mean.norm()) * whole / (whole - own_weight) + float(wanted.norm())
                assert float((dense(rest.adapter[module]) - wanted).norm()) == pytest.approx(lost, abs=1e-5 * scale)
                assert rest.error * float(wanted.norm()) == pytest.approx(lost, abs=1e-5 * scale)


@quick
@given(clients())
def test_a_client_that_knows_the_bank_finds_its_own_rest(some):
    some.ranks = {name: dict.fromkeys(SHAPES, 5) for name in [*some.contributions, "newcomer"]}
    some.weights = {name: min(weight, 50.0) for name, weight in some.weights.items()}
    bank, owners = {}, {}
    for module in SHAPES:
        parts = [(some.weights[n], some.contributions[n][module]) for n in some.others(None, module)]
        if parts:
            some.ranks["bank"] = dict.fromkeys(SHAPES, 7)
            a, b = some.means_of_rows("bank", module)
            pad = 7 - len(a)  # what nobody owns keeps whatever it was
            bank[module] = Factors(
                torch.cat([a.float(), torch.full((pad, a.shape[1]), 9.0)]),
                torch.cat([b.float(), torch.full((b.shape[0], pad), 9.0)], dim=1),
            )
            owners[module] = torch.tensor([math.fsum(w for w, f in parts if f.rank > index) for index in range(7)])
    server = some.rests("factors")
    for client in [*some.contributions, "newcomer"]:
        own = some.contributions.get(client, Adapter())
        weight = some.weights.get(client, 0.0)
        rest = without_own_factors(Adapter(bank), owners, own, weight, some.ranks[client])
        assert rest.adapter.ranks == server[client].adapter.ranks
        for module, found in rest.adapter.items():
            torch.testing.assert_close(found.a, server[client].adapter[module].a, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(found.b, server[client].adapter[module].b, rtol=1e-3, atol=1e-3)


def test_the_client_half_refuses_what_cannot_be():
    part, own = Adapter({"m": factors_of(1, (8, 10), 2)}), Adapter({"m": factors_of(2, (8, 10), 2)})
    with pytest.raises(AggregationError, match=r"module 'm'.*larger than the total"):
        without_own(part, {"m": 1.0}, own, 2.0, {"m": 2})
    with pytest.raises(AggregationError, match=r"module 'm'.*positive"):
        without_own(part, {}, own, 2.0, {"m": 2})
    with pytest.raises(AggregationError, match="own weight"):
        without_own(part, {"m": 1.0}, own, -2.0, {"m": 2})
    with pytest.raises(AggregationError, match=r"the client's own, module 'm'"):
        without_own(part, {"m": 1.0}, Adapter({"m": factors_of(2, (8, 11), 2)}), 0.5, {"m": 2})
    with pytest.raises(AggregationError, match=r"module 'm'.*shape \(2,\)"):
        without_own_factors(part, {"m": torch.ones(3)}, own, 0.5, {"m": 2})


def test_neighbours_are_the_most_similar_others():
    similarity = torch.tensor([[1.0, 0.2, 0.9, 0.2], [0.2, 1, -1, 0], [0.9, -1, 1, 0.3], [0.2, 0, 0.3, 1]])
    names = ["d", "c", "b", "a"]
    assert neighbours(similarity, names, 2) == {"d": ("b", "a"), "c": ("d", "a"), "b": ("d", "a"), "a": ("b", "d")}
    assert neighbours(similarity, names, 9)["d"] == ("b", "a", "c")
    for wrong, count in ((similarity[:2], 1), (similarity * math.nan, 1), (similarity, 0)):
        with pytest.raises(AggregationError):
            neighbours(wrong, names, count)
