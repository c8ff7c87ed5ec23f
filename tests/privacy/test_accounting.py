"""Epsilon against other libraries, and the noise that keeps to a budget."""

import math
import sys

import pytest

from fedloom.errors import RunError
from fedloom.privacy.accounting import Spending, epsilon_of, noise_for, require_delta, rounds_left

GRID = [
    (noise, rate, steps, delta)
    for noise, rate in ((0.7, 0.01), (1.0, 0.004), (1.0, 0.05), (2.0, 0.1), (4.0, 1.0))
    for steps, delta in ((10, 1e-5), (2000, 1e-6))
]


@pytest.mark.parametrize(("noise", "rate", "steps", "delta"), GRID)
def test_rdp_agrees_with_opacus(noise, rate, steps, delta):
    accountants = pytest.importorskip("opacus.accountants")
    accountant = accountants.RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    orders = [1 + order / 10 for order in range(10, 100)] + [*range(11, 64), 128, 256, 512, 1024]
    expected = accountant.get_epsilon(delta, alphas=orders)
    assert epsilon_of([Spending(noise, rate, steps)], delta) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("noise", "rate", "steps", "delta"), GRID[:4])
def test_pld_agrees_with_opacus_prv(noise, rate, steps, delta):
    accountants = pytest.importorskip("opacus.accountants")
    accountant = accountants.PRVAccountant()
    accountant.history = [(noise, rate, steps)]
    expected = accountant.get_epsilon(delta, eps_error=0.005)
    found = epsilon_of([Spending(noise, rate, steps)], delta, "pld")
    assert found == pytest.approx(expected, rel=0.02, abs=0.006)
    assert found <= epsilon_of([Spending(noise, rate, steps)], delta, "rdp")


def test_one_step_of_all_rows_is_the_analytic_gaussian_mechanism():
    """delta(eps) = Phi(1/2s - eps s) - e^eps Phi(-1/2s - eps s) (Balle and Wang, 2018)."""
    epsilon = epsilon_of([Spending(1.3, 1.0, 1)], 1e-5, "pld")

    def phi(x):
        return 0.5 * math.erfc(-x / math.sqrt(2))

    half = 1 / (2 * 1.3)
    delta = phi(half - epsilon * 1.3) - math.exp(epsilon) * phi(-half - epsilon * 1.3)
    assert delta == pytest.approx(1e-5, rel=0.02)


def test_the_noise_of_the_paper():
    """FFA-LoRA's setting: 22,450 rows, batches of 200, 10,000 steps."""
    assert 0.99 <= noise_for(6, 1e-5, 200 / 22450, 10000) <= 1.00


@pytest.mark.parametrize(
    ("epsilon", "rate", "steps", "accountant"),
    [(1.0, 0.02, 500, "rdp"), (8.0, 0.1, 9, "rdp"), (0.5, 0.5, 20, "rdp"), (3.0, 0.1, 10, "pld")],
)
def test_calibrated_noise_keeps_to_the_budget_and_less_would_not(epsilon, rate, steps, accountant):
    noise = noise_for(epsilon, 1e-5, rate, steps, accountant)
    assert epsilon_of([Spending(noise, rate, steps)], 1e-5, accountant) <= epsilon
    assert epsilon_of([Spending(noise - 0.01, rate, steps)], 1e-5, accountant) > epsilon


def test_no_noise_is_enough_for_nothing():
    with pytest.raises(RunError, match=r"no noise is enough.*epsilon 1e-06 over 1000 steps"):
        noise_for(1e-6, 1e-9, 1.0, 1000)


def test_nothing_spends_nothing_and_order_and_grouping_do_not_matter():
    one, other = Spending(1.0, 0.05, 10), Spending(2.0, 0.1, 30)
    assert epsilon_of([], 1e-5) == epsilon_of([one.times(0)], 1e-5) == 0
    together = epsilon_of([one, other, one], 1e-5)
    assert together == pytest.approx(epsilon_of([other, one.times(2)], 1e-5))
    assert together > epsilon_of([one, other], 1e-5) > epsilon_of([one], 1e-5) > 0


@pytest.mark.parametrize("before", [[], [Spending(1.0, 0.05, 40)], [Spending(0.5, 0.2, 50)]])
def test_rounds_left_are_those_that_one_counts(before):
    each, budget = Spending(1.5, 0.05, 5), 2.5
    counted = 0
    while epsilon_of([*before, each.times(counted + 1)], 1e-5) <= budget:
        counted += 1
    assert rounds_left(before, each, budget, 1e-5) == counted


@pytest.mark.parametrize(("delta", "rows"), [(0.1, 10), (0.5, 10), (0.0, 10), (-1.0, 10), (math.nan, 10)])
def test_a_delta_of_one_row_is_refused(delta, rows):
    with pytest.raises(RunError, match=r"site: delta is too large.*below 1 / 10 = 0.1"):
        require_delta(delta, rows, where="site")


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(RunError, match=r"accounting.*dp_accounting.*fedloom\[privacy\]"):
        epsilon_of([Spending(1.0, 0.1, 1)], 1e-5)
