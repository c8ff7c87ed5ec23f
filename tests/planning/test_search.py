"""The solver against every choice there is, against the whole program at once, and what must not change a plan."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.planning.problem import Limits, Problem, fits, saturating
from fedloom.planning.search import GAP, best_of
from fedloom.planning.solve import solved
from tests.oracles.brute import best_worth
from tests.oracles.whole_program import whole_worth
from tests.planning.small import architecture_of, client_of, problem_of, small_problems, some_limits

EXACT = 0.0
ROUNDING = 1e-9


@settings(max_examples=60, deadline=None)
@given(small_problems())
def test_no_choice_is_better_than_the_one_that_was_found(problem):
    client = problem.clients[0]
    expected, found = best_worth(problem, client), best_of(problem, client, EXACT)
    assert (found is None) == (expected is None)
    if found is not None:
        assert found.worth == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)
        assert found.bound >= expected - ROUNDING
        assert found.bound == pytest.approx(found.worth, abs=1e-6), "nothing is left open"
        assert fits(client, found.cost)


@settings(max_examples=30, deadline=None)
@given(small_problems(), st.floats(1e-4, 0.3))
def test_a_gap_is_kept_and_bounds_hold(problem, gap):
    client = problem.clients[0]
    expected, found = best_worth(problem, client), best_of(problem, client, gap)
    if found is not None:
        assert fits(client, found.cost)
        assert found.worth <= expected + ROUNDING
        assert found.bound >= expected - ROUNDING
        assert found.bound - found.worth <= gap * abs(found.worth) + 1e-6


@settings(max_examples=12, deadline=None)
@given(some_limits, st.lists(st.floats(0.1, 10), min_size=9, max_size=9), st.sampled_from([0.0, 0.01]))
def test_settings_apart_are_as_good_as_the_program_in_one_piece(limits, importance, price):
    """The formulas of `problem`, all settings at once, given to HiGHS as they stand."""
    client = client_of(limits=limits)
    menu = replace(problem_of(client).menu, ranks=(1, 2, 3, 4), gains=saturating((1, 2, 3, 4)), second_price=price)
    problem = Problem(architecture_of(3, names=("q", "up", "down")), tuple(importance), (client,), menu)
    expected, found = whole_worth(problem, client), best_of(problem, client, EXACT)
    assert (found is None) == (expected is None)
    if found is not None:
        assert found.worth == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(small_problems(), st.sampled_from(["memory_bytes", "seconds", "up_bytes", "down_bytes"]), st.floats(1, 3))
def test_more_of_anything_never_makes_a_plan_worse(problem, limit, factor):
    client = problem.clients[0]
    more = replace(client.limits, **{limit: factor * getattr(client.limits, limit)})
    before, after = (best_of(problem, one, EXACT) for one in (client, replace(client, limits=more)))
    if before is not None:
        assert after.worth >= before.worth - ROUNDING


@settings(max_examples=25, deadline=None)
@given(small_problems(), st.integers(-20, 20), st.floats(1e-6, 1e6))
def test_the_scale_of_importance_changes_nothing(problem, power, factor):
    exactly = replace(problem, importance=tuple(2.0**power * one for one in problem.importance))
    about = replace(problem, importance=tuple(factor * one for one in problem.importance))
    client = problem.clients[0]
    first, second, third = (best_of(one, client, EXACT) for one in (problem, exactly, about))
    assert first == second, "a power of two rounds nothing"
    if first is not None:
        assert third.worth == pytest.approx(first.worth, abs=ROUNDING)


def plans(problem, gap=GAP):
    return {name: one.choice for name, one in solved(problem, gap).best}


@settings(max_examples=15, deadline=None)
@given(small_problems())
def test_the_same_problem_has_the_same_plan(problem):
    assert best_of(problem, problem.clients[0]) == best_of(problem, problem.clients[0])


def test_who_has_room_for_everything_trains_everything_in_the_fastest_way():
    choice = plans(problem_of(client_of()), EXACT)["one"]
    assert dict(choice.ranks) == {"0.q": 4, "0.up": 4, "1.q": 4, "1.up": 4}
    assert (choice.bits, choice.batch, choice.accumulation) == (32, 4, 1)


def test_who_has_little_memory_takes_fewer_bits():
    tight = plans(problem_of(client_of(memory_bytes=3e4)), EXACT)["one"]
    assert tight.bits < 32
    assert tight.batch < 4


def test_a_deadline_is_met_by_leaving_lower_blocks_alone():
    """Without a lower block the backward pass is shorter; what lies above is trained as well as can be."""
    free = best_of(problem_of(client_of()), client_of(), EXACT)
    late = best_of(problem_of(client_of()), client_of(limits=Limits(seconds=0.75 * free.cost.seconds)), EXACT)
    assert {name for name, _ in late.choice.ranks} == {"1.q", "1.up"}


def test_a_price_of_time_makes_rounds_shorter():
    seconds = [
        best_of(problem_of(client_of(), second_price=price), client_of(), EXACT).cost.seconds
        for price in (0.0, 0.01, 0.05, 10.0)
    ]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[-1] < 0.8 * seconds[0]


def test_a_price_that_eats_up_all_worth_still_leaves_something_to_train():
    assert len(best_of(problem_of(client_of(), second_price=1e3), client_of(), EXACT).choice.ranks) == 1


def test_important_modules_come_first():
    limits = Limits(up_bytes=100 + 4 * 4 * 40)
    for index, name in enumerate(("0.q", "0.up", "1.q", "1.up")):
        importance = tuple(100.0 if place == index else 1.0 for place in range(4))
        problem = problem_of(client_of(limits=limits), importance=importance)
        ranks = dict(plans(problem, EXACT)["one"].ranks)
        assert max(ranks, key=ranks.__getitem__) == name
        assert ranks[name] == 4
