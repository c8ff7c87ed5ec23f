"""Shares of noise: enough in every sum that can be opened, on changes that are within the bound in whole steps."""

import math

import numpy as np
import pytest

from fedloom.errors import RunError
from fedloom.privacy.noise_share import FINENESS, ROUNDED, NoiseShare, clipped_steps


def share(bound=0.7, multiplier=1.3, colluding=0, counting=0.0):
    return NoiseShare(bound, multiplier, colluding, None, 1e-5, "rdp", counting)


@pytest.mark.parametrize(("colluding", "threshold"), [(0, 4), (1, 4), (2, 5)])
def test_the_fewest_honest_clients_of_a_sum_make_up_the_whole_noise(colluding, threshold):
    noise = share(colluding=colluding)
    deviation = noise.deviation(threshold, 6)
    assert math.sqrt(threshold - colluding) * deviation == pytest.approx(1.3 * 0.7)


@pytest.mark.parametrize(("colluding", "threshold", "clients"), [(0, 3, 6), (2, 4, 6), (0, 7, 6), (6, 6, 6)])
def test_a_threshold_that_two_sums_could_reach_promises_nothing(colluding, threshold, clients):
    with pytest.raises(RunError, match="promises nothing"):
        share(colluding=colluding).deviation(threshold, clients)


@pytest.mark.parametrize("wrong", [{"bound": 0.0}, {"multiplier": math.inf}, {"colluding": -1}, {"counting": 1.2}])
def test_a_share_of_nothing_is_refused(wrong):
    with pytest.raises(RunError, match="no share of a noise"):
        share(**wrong)


@pytest.mark.parametrize("numbers", [1, 1000, 10**9])
@pytest.mark.parametrize("multiplier", [0.01, 1.0, 300.0])
def test_the_grid_is_finer_than_the_noise_and_takes_little_of_the_bound(numbers, multiplier):
    noise = share(multiplier=multiplier)
    deviation = noise.deviation(2, 3)
    step = 2.0 ** -noise.digits(deviation, numbers)
    assert deviation / step >= FINENESS
    assert math.sqrt(numbers) * step / 2 <= ROUNDED * noise.bound


@pytest.mark.parametrize("size", [0.1, 0.69999, 0.7, 0.8, 50.0])
def test_a_change_is_within_the_bound_in_whole_steps(size):
    """Of numbers that all round up: plain rounding of a change of just the bound would carry it above."""
    noise = share()
    digits = noise.digits(0.5, 40_000)
    whole = math.ldexp(size / 200, digits)
    change = np.full(40_000, math.ldexp(math.floor(whole) + 0.5 + 1e-6, -digits))
    steps = clipped_steps(change, noise.bound, digits)
    norm = math.sqrt(sum(int(step) ** 2 for step in steps.tolist()))
    assert norm <= math.ldexp(noise.bound, digits)
    assert norm >= math.ldexp(min(size, noise.bound), digits) * (1 - 2 * ROUNDED)
    if size >= noise.bound:
        assert np.linalg.norm(np.rint(np.ldexp(change, digits))) > math.ldexp(noise.bound, digits)


def test_a_small_change_is_rounded_and_no_more():
    change = np.array([0.1, -0.25, 0.0])
    assert clipped_steps(change, 1.0, 20).tolist() == np.rint(change * 2**20).tolist()


def test_a_grid_that_is_too_coarse_is_refused():
    with pytest.raises(RunError, match=r"too coarse.*at most 0\.001.*found 0\.25"):
        clipped_steps(np.ones(4), 1.0, 2)
