"""Tails and limits against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from fedloom.privacy.binomial import at_least, interval, log_masses, lower_limit, upper_limit


@pytest.mark.parametrize(("hits", "tosses", "p"), [(0, 5, 0.2), (3, 5, 0.2), (5, 5, 0.9), (70, 999, 0.05)])
def test_tails_are_those_of_scipy(hits, tosses, p):
    assert at_least(hits, tosses, p) == pytest.approx(stats.binom.sf(hits - 1, tosses, p), rel=1e-9)


def test_certain_and_impossible_tosses():
    assert at_least(3, 3, 1.0) == 1.0
    assert at_least(1, 3, 0.0) == 0.0
    assert at_least(0, 3, 0.0) == 1.0


def test_masses_keep_what_is_nearly_certain():
    """1 - p = e^-60 is lost beside 1 in float64; the log of it is not."""
    masses = log_masses(2, -math.exp(-60), -60.0)
    assert masses[1] == pytest.approx(math.log(2) - 60)
    assert np.exp(masses).sum() == pytest.approx(1)


@pytest.mark.parametrize(("hits", "tosses"), [(0, 10), (1, 10), (10, 10), (37, 400)])
def test_the_interval_is_that_of_clopper_and_pearson(hits, tosses):
    low, high = interval(hits, tosses, 0.95)
    assert low == pytest.approx(0 if hits == 0 else stats.beta.ppf(0.025, hits, tosses - hits + 1), abs=1e-12)
    assert high == pytest.approx(1 if hits == tosses else stats.beta.ppf(0.975, hits + 1, tosses - hits), abs=1e-12)


def test_limits_of_one_side_leave_out_what_has_less_than_the_chance():
    low, high = lower_limit(30, 100, 0.01), upper_limit(30, 100, 0.01)
    assert at_least(30, 100, low) == pytest.approx(0.01)
    assert 1 - at_least(31, 100, high) == pytest.approx(0.01)
