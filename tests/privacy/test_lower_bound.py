"""The bound that guesses prove: the paper's own numbers, and mechanisms whose epsilon is known."""

import math

import numpy as np
import pytest
from scipy import stats

from fedloom.privacy.lower_bound import (
    Guesses,
    canaries_needed,
    epsilon_at_least,
    epsilon_of_rates,
    guesses_of,
    most_that_shows,
    p_value,
)

DELTA = 1e-5


def randomised_response(draw, canaries, epsilon):
    """(scores, coins): each coin is told truly with chance e^eps / (1 + e^eps), and is epsilon-private."""
    coins = draw.random(canaries) < 0.5
    truly = draw.random(canaries) < 1 / (1 + math.exp(-epsilon))
    return np.where(truly, coins, ~coins).astype(float), coins


def audited(scores, coins, delta=DELTA):
    return epsilon_at_least(guesses_of(scores, coins), delta)


@pytest.mark.parametrize(
    ("guesses", "delta", "published"),
    [(Guesses(1000, 100, 75), 1e-4, 0.673), (Guesses(100_000, 1510, 1439), 1e-5, 2.675)],
)
def test_it_gives_the_numbers_of_the_paper(guesses, delta, published):
    """Steinke et al. (2023), appendix D and section 7."""
    assert epsilon_at_least([guesses], delta) == pytest.approx(published, abs=1e-3)


@pytest.mark.parametrize("delta", [0.0, 1e-3])
def test_the_chance_is_that_of_the_formula_term_by_term(delta):
    made, right, epsilon = 30, 24, 0.7
    q = 1 / (1 + math.exp(-epsilon))
    alpha = max(
        (stats.binom.cdf(right - 1, made, q) - stats.binom.cdf(right - i - 1, made, q)) / i for i in range(1, right + 1)
    )
    expected = stats.binom.sf(right - 1, made, q) + 2 * 50 * delta * alpha
    assert p_value(Guesses(50, made, right), epsilon, delta) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 4.0])
def test_of_many_audits_at_least_95_in_100_are_right(epsilon):
    draw = np.random.default_rng(1)
    bounds = np.array([audited(*randomised_response(draw, 120, epsilon)) for _ in range(300)])
    assert (bounds <= epsilon).mean() >= 0.95
    assert (bounds > 0).mean() > 0.3  # not right by saying nothing


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 4.0])
def test_many_canaries_come_near_the_true_epsilon(epsilon):
    bound = audited(*randomised_response(np.random.default_rng(2), 50_000, epsilon), delta=0.0)
    assert 0.85 * epsilon < bound <= epsilon


def test_scores_that_know_nothing_prove_nothing():
    draw = np.random.default_rng(3)
    bounds = [audited(draw.normal(size=200), draw.random(200) < 0.5) for _ in range(200)]
    assert np.mean(np.array(bounds) == 0) >= 0.95


def test_equal_scores_prove_nothing_wherever_they_stand():
    coins = np.random.default_rng(4).random(1000) < 0.5
    assert audited(np.zeros(1000), coins) == 0


def test_the_guesses_are_the_ends_of_the_order():
    scores = np.array([5.0, 1.0, 4.0, 0.0, 3.0, 2.0, 9.0, 8.0])
    coins = np.array([True, False, False, True, True, True, True, True])
    quarter, all_of_them = guesses_of(scores, coins, (0.25, 1.0))
    assert quarter == Guesses(8, 2, 1)  # 9.0 is in: right; 0.0 is in and was called out: wrong
    assert all_of_them == Guesses(8, 8, 3 + 1)  # of 9, 8, 5 and 4 three are in; of 3, 2, 1 and 0 one is out


def test_every_trial_more_costs_some_of_the_bound():
    one = Guesses(100, 100, 90)
    worse = Guesses(100, 100, 60)
    assert 0 < epsilon_at_least([one, worse, worse], DELTA) < epsilon_at_least([one], DELTA)
    assert epsilon_at_least([], DELTA) == 0


def test_a_larger_delta_proves_less():
    one = Guesses(100, 100, 95)
    assert epsilon_at_least([one], 1e-2) < epsilon_at_least([one], 1e-4) < epsilon_at_least([one], 0.0)


def test_what_so_many_canaries_can_show_at_most():
    perfect = [Guesses(100, 80, 80)]
    assert most_that_shows(100, 1, DELTA) == pytest.approx(epsilon_at_least(perfect, DELTA))
    assert most_that_shows(50, 9, DELTA) < most_that_shows(100, 9, DELTA) < most_that_shows(100, 1, DELTA)


def test_how_many_canaries_are_needed_is_the_first_number_that_shows_something():
    needed = canaries_needed(9, DELTA)
    assert most_that_shows(needed, 9, DELTA) > 0
    assert most_that_shows(needed - 1, 9, DELTA) == 0
    assert canaries_needed(9, 0.1) is None


def test_rates_of_rows_suggest_an_epsilon_only_where_they_differ():
    draw = np.random.default_rng(6)
    same = [epsilon_of_rates(draw.normal(size=300), draw.normal(size=300), DELTA) for _ in range(100)]
    assert np.mean(np.array(same) == 0) >= 0.95
    members, others = draw.normal(3, 1, 500), draw.normal(0, 1, 500)
    bound = epsilon_of_rates(members, others, DELTA)
    assert 1.5 < bound < 6
    assert epsilon_of_rates(members, others, 0.3) < bound


def test_rates_count_both_kinds_of_error():
    """Nobody is found for sure, but some others are known to be none."""
    others = np.concatenate((np.full(250, -9.0), np.random.default_rng(7).normal(size=250)))
    assert epsilon_of_rates(np.random.default_rng(8).normal(size=500), others, DELTA) > 1
