"""Bounds that hold at any prices, and choices that fit."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedloom.planning.bounds import bounds_of_all, bounds_with, chosen_at, priced, priced_at
from fedloom.planning.knapsack import Knapsack, knapsack, knapsacks
from tests.oracles.brute import best_worth
from tests.planning.small import small_problems

any_prices = st.lists(st.floats(0, 10), min_size=4, max_size=4).map(np.array)


@settings(max_examples=25, deadline=None)
@given(small_problems(), any_prices, st.integers(1, 30))
def test_no_choice_is_worth_more_than_the_highest_bound(problem, prices, rounds):
    best = best_worth(problem, problem.clients[0])
    assume(best is not None)
    sacks = knapsacks(problem, problem.clients[0])
    for bounds in (bounds_of_all(sacks, rounds)[0], bounds_with(sacks, prices)):
        assert bounds.max() >= best - 1e-9


def random_sack(draws: np.random.Generator, modules: int = 6, ranks: int = 3, limits: int = 2) -> Knapsack:
    """Gains that grow ever more slowly with the rank, costs in proportion to it."""
    ladder = 2.0 ** np.arange(ranks)
    worth = draws.lognormal(0, 1, (modules, 1)) * ladder / (ladder + 2)
    cost = draws.uniform(0.02, 0.1, (limits, modules, 1)) * ladder
    return Knapsack(worth, cost, np.ones(limits), 0.0)


def best_of_sack(sack: Knapsack) -> float:
    """Every choice of a small knapsack."""
    modules, ranks = sack.worth.shape
    every = np.stack(np.meshgrid(*[np.arange(-1, ranks)] * modules, indexing="ij"), -1).reshape(-1, modules)
    values = np.concatenate([sack.worth, np.zeros((modules, 1))], 1)  # index -1: none
    costs = np.concatenate([sack.cost, np.zeros((*sack.cost.shape[:2], 1))], 2)
    place = np.arange(modules)
    fitting = (costs[:, place, every].sum(2) <= sack.room[:, None]).all(0)
    return float(values[place, every].sum(1)[fitting].max())


@pytest.mark.parametrize("seed", range(8))
def test_descent_comes_near_the_best_and_items_that_lose_too_much_are_not_in_it(seed):
    sack = random_sack(np.random.default_rng(seed))
    best, about = best_of_sack(sack), priced(sack, np.zeros(2), 60)
    assert best <= about.bound + 1e-12
    assert about.bound <= 1.15 * best
    assert about.bound == pytest.approx(priced_at(sack, about.prices).bound)
    assert (about.loss >= -1e-12).all()
    m, j = np.unravel_index(about.loss.argmax(), about.loss.shape)
    with_it = Knapsack(np.where(np.arange(6)[:, None] == m, -1e30, sack.worth), sack.cost, sack.room, 0.0)
    with_it.worth[m, j] = sack.worth[m, j] + 100  # so much that the item is taken
    if (sack.cost[:, m, j] <= 1).all():
        assert best_of_sack(with_it) - 100 <= about.bound - about.loss[m, j] + 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_what_prices_suggest_fits_and_leaves_no_room_for_more(seed):
    sack = random_sack(np.random.default_rng(seed), modules=20)
    about = priced(sack, np.zeros(2), 60)
    for prices in (np.zeros(2), np.array([3.0, 0.0]), about.prices):
        picked = chosen_at(sack, prices)
        value, used = sack.total(picked)
        assert sack.holds(used)
        for m in range(20):
            for j in range(picked[m] + 1, 3):
                more = picked.copy()
                more[m] = j
                assert not sack.holds(sack.total(more)[1]), "a higher rank would have fitted"
        assert value > 0
    assert sack.total(chosen_at(sack, about.prices))[0] >= 0.97 * about.bound


def test_where_everything_fits_the_bound_is_reached_without_prices():
    sack = random_sack(np.random.default_rng(0))
    roomy = Knapsack(sack.worth, 1e-3 * sack.cost, sack.room, -0.5)
    about = priced(roomy, np.zeros(2), 20)
    assert about.bound == pytest.approx(sack.worth.max(1).sum() - 0.5)
    assert roomy.total(chosen_at(roomy, about.prices))[0] == pytest.approx(about.bound)


@settings(max_examples=15, deadline=None)
@given(small_problems())
def test_settings_whose_fixed_costs_do_not_fit_have_no_bound(problem):
    sacks = knapsacks(problem, problem.clients[0])
    bounds, _ = bounds_of_all(sacks, 3)
    assert ((bounds == -np.inf) == ~sacks.possible).all()
    for k, d in np.argwhere(~sacks.possible):
        assert not knapsack(sacks, k, d).has_items
