"""Which directions are trained, and the new ones for empty places."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.aggregation.directions import RULES, choose, deal, divided, new_rows, weighted


def draws(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None)
@given(st.sampled_from(sorted(RULES)), st.integers(1, 12), st.integers(0, 12), st.integers(0, 30), st.integers(0, 99))
def test_chosen_and_others_divide_the_known_directions(rule, rank, wider, known, seed):
    chosen, others = choose(rule, rank, rank + wider, known, draws(seed))
    assert sorted(chosen + others) == list(range(known))
    assert len(chosen) <= rank
    assert all(position < rank + wider for position in chosen)


@pytest.mark.parametrize(
    ("rule", "always", "sometimes"),
    [
        ("top", {0, 1, 2, 3}, {0, 1, 2, 3}),
        ("half", {0, 1}, set(range(8))),
        ("rotating", set(), set(range(8))),
        ("fresh", set(), set()),
    ],
)
def test_what_each_rule_trains(rule, always, sometimes):
    rounds = [set(choose(rule, 4, 8, 20, draws(seed))[0]) for seed in range(60)]
    assert set.intersection(*rounds) == always
    assert set.union(*rounds) == sometimes


def test_rotating_draws_empty_places_too():
    counts = {len(choose("rotating", 4, 8, 5, draws(seed))[0]) for seed in range(60)}
    assert counts == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("known", "chosen", "count", "apart_from"),
    [(0, 0, 4, "known"), (6, 2, 4, "known"), (8, 2, 4, "chosen"), (10, 7, 4, "nothing")],
)
def test_new_rows_are_orthonormal_and_apart_while_there_is_room(known, chosen, count, apart_from):
    basis = torch.linalg.qr(torch.randn(10, 10, generator=draws(1))).Q
    rows = new_rows(count, basis[:chosen], basis[:known], draws(2))
    torch.testing.assert_close(rows @ rows.T, torch.eye(count), atol=1e-5, rtol=0)
    others = {"known": basis[:known], "chosen": basis[:chosen], "nothing": basis[:0]}[apart_from]
    assert float((rows @ others.T).abs().sum()) < 1e-5
    assert not torch.equal(rows, new_rows(count, basis[:chosen], basis[:known], draws(3)))


def test_more_rows_than_the_layer_has_inputs_are_still_of_length_one():
    rows = new_rows(5, torch.zeros(0, 3), torch.zeros(0, 3), draws())
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(5))


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcde"), st.integers(1, 6), min_size=1), st.integers(0, 30), st.integers(0, 99))
def test_what_is_dealt_is_dealt_once_and_covers_what_is_known(ranks, known, seed):
    dealt = deal(ranks, known, draws(seed))
    everything = [position for positions in dealt.values() for position in positions]
    assert {client: len(positions) for client, positions in dealt.items()} == ranks
    assert len(set(everything)) == len(everything)
    covered = set(everything) & set(range(known))
    assert len(covered) == min(known, sum(ranks.values()))
    for positions in dealt.values():
        chosen, others = divided(positions, known)
        assert sorted(chosen + others) == list(range(known))


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e3), max_size=30), st.floats(0, 1e6), st.integers(1, 12), st.integers(0, 99))
def test_weighted_draws_as_many_as_there_is_place_and_none_twice(strengths, power, rank, seed):
    drawn = weighted(torch.tensor(strengths), power, rank, draws(seed))
    assert len(drawn) == min(rank, len(strengths)) == len(set(drawn))
    assert set(drawn) <= set(range(len(strengths)))


def test_the_chance_of_a_direction_grows_with_the_power_of_its_strength():
    strengths, rounds = torch.tensor([4.0, 2.0, 1.0, 1.0]), 4000

    def shares(power: float) -> list[float]:
        shuffled = draws(7)
        first = [weighted(strengths, power, 1, shuffled)[0] for _ in range(rounds)]
        return [first.count(position) / rounds for position in range(4)]

    assert shares(0.0) == pytest.approx([0.25] * 4, abs=0.03)
    assert shares(1.0) == pytest.approx([4 / 8, 2 / 8, 1 / 8, 1 / 8], abs=0.03)
    assert shares(2.0) == pytest.approx([16 / 22, 4 / 22, 1 / 22, 1 / 22], abs=0.03)
    assert weighted(strengths, 1e4, 2, draws()) == [0, 1]
