"""HiGHS over what is left: as good as every choice, never beyond a limit, and silent."""

import ctypes

import numpy as np
import pytest

from fedloom.planning.bounds import chosen_at, priced, priced_at
from fedloom.planning.extra import silenced
from fedloom.planning.highs import core_of, improved, relaxed_prices
from fedloom.planning.knapsack import Knapsack
from tests.planning.test_bounds import best_of_sack, random_sack


@pytest.mark.parametrize("seed", range(12))
def test_the_best_of_a_small_knapsack(seed):
    sack = random_sack(np.random.default_rng(100 + seed), limits=3)
    about, best = priced(sack, np.zeros(3), 30), best_of_sack(sack)
    found = improved(sack, about, 0.0, 0.0)
    value, used = sack.total(found.picked)
    assert sack.holds(used)
    assert value == pytest.approx(best, abs=1e-9)
    assert found.bound == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_excluded_items_lose_nothing(seed):
    """Given a good choice most items are ruled out, and the best choice is found all the same."""
    sack = random_sack(np.random.default_rng(200 + seed), limits=3)
    about, best = priced(sack, np.zeros(3), 60), best_of_sack(sack)
    least = sack.total(chosen_at(sack, about.prices))[0]
    assert len(core_of(sack, about, least).modules) < len(core_of(sack, about, 0.0).modules)
    found = improved(sack, about, least, 0.0)
    if found.picked is None:
        assert least == pytest.approx(best, abs=1e-9)
    else:
        assert sack.total(found.picked)[0] == pytest.approx(best, abs=1e-9)
    assert found.bound >= best - 1e-9


def test_nothing_better_is_none():
    sack = random_sack(np.random.default_rng(1))
    about, best = priced(sack, np.zeros(2), 60), best_of_sack(sack)
    assert improved(sack, about, best, 0.0).picked is None
    assert improved(sack, about, best, 0.0).bound == pytest.approx(best, abs=1e-6)


def test_greed_fails_where_the_program_does_not():
    """Of two that fill the room the better one is worth less for its price than a third that wastes it."""
    worth = np.array([[6.0], [5.0], [5.0]])
    cost = np.array([[[0.6], [0.5], [0.5]]])
    sack = Knapsack(worth, cost, np.ones(1), 0.0)
    about = priced_at(sack, np.array([10.0]))
    found = improved(sack, about, sack.total(np.array([0, -1, -1]))[0], 0.0)
    assert found.picked.tolist() == [-1, 0, 0]


@pytest.mark.parametrize("seed", range(6))
def test_prices_of_the_relaxation_give_the_tightest_bound(seed):
    sack = random_sack(np.random.default_rng(300 + seed), modules=30, limits=3)
    rough = priced(sack, np.zeros(3), 5)
    exact = priced_at(sack, relaxed_prices(sack, rough, 0.0))
    fine = priced(sack, exact.prices, 200)
    assert exact.bound <= rough.bound + 1e-9
    assert fine.bound >= exact.bound - 1e-6


def test_a_choice_must_train_something():
    """All worths are negative: the best is the least bad module, not none."""
    sack = Knapsack(np.array([[-2.0], [-1.0]]), np.full((1, 2, 1), 0.4), np.ones(1), 0.0)
    found = improved(sack, priced_at(sack, np.zeros(1)), -3.0, 0.0)
    assert found.picked.tolist() == [-1, 0]


def test_what_c_code_prints_is_not_heard(capfd):
    library = ctypes.CDLL(None)
    with silenced():
        library.puts(b"noise")
    library.puts(b"words")
    library.fflush(None)
    assert capfd.readouterr().out == "words\n"
