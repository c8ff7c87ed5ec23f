"""Fixed point: sums are exact and cannot overflow; what is beyond the bound is refused by the client's name."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.errors import ContributionRefusedError, RunError
from fedloom.privacy.secagg.fixed_point import FixedPoint

BOUNDS = st.floats(1e-30, 1e30)


@settings(deadline=None, max_examples=200)
@given(BOUNDS, st.integers(1, 5000), st.sampled_from([1.0, -1.0]))
def test_the_largest_sum_of_all_clients_fits(largest, clients, sign):
    fixed = FixedPoint(largest, clients)
    word = int(fixed.encode(np.array([sign * largest]), "a").view(np.int64)[0])
    assert abs(word * clients) < 2**63
    total = np.full(1, word * clients, dtype=np.int64).view(np.uint64)
    assert fixed.decode(total)[0] == pytest.approx(sign * largest * clients, rel=1e-12)
    # and one bit finer could overflow by rounding up to twice the bound: the scale is no coarser than it must be
    assert abs(word * clients) > 2**60


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=20))
def test_rounding_is_half_a_step_for_each_client(values):
    fixed = FixedPoint(3.0, len(values))
    total = np.zeros(1, dtype=np.uint64)
    for value in values:
        total += fixed.encode(np.array([value]), "a")
    assert abs(fixed.decode(total)[0] - math.fsum(values)) <= len(values) * 2.0 ** -(fixed.bits + 1) + 1e-12


@pytest.mark.parametrize("value", [1.0000001, -2.0, math.nan, math.inf])
def test_a_number_beyond_the_bound_names_the_client(value):
    with pytest.raises(ContributionRefusedError, match=r"client 'site-3': a number is beyond the bound") as caught:
        FixedPoint(1.0, 3).encode(np.array([0.0, value]), "site-3")
    assert caught.value.client == "site-3"


@pytest.mark.parametrize(("largest", "clients"), [(0.0, 3), (math.inf, 3), (1e308, 1000), (1.0, 0), (math.nan, 1)])
def test_bounds_that_are_none_are_refused(largest, clients):
    with pytest.raises(RunError, match="no fixed point"):
        FixedPoint(largest, clients)


def test_digits_that_are_asked_for_are_used_or_refused():
    assert FixedPoint(10.0, 4, digits=20).bits == 20
    most = FixedPoint(10.0, 4).bits
    assert FixedPoint(10.0, 4, digits=most).bits == most
    with pytest.raises(RunError, match=rf"at most {most} binary digits.*found {most + 1}"):
        FixedPoint(10.0, 4, digits=most + 1)


def test_whole_steps_are_words_within_the_bound_and_no_others():
    fixed = FixedPoint(10.0, 4, digits=20)
    steps = np.array([-10 * 2**20, 0, 10 * 2**20])
    assert fixed.decode(fixed.words(steps, "a")).tolist() == [-10.0, 0.0, 10.0]
    for beyond in (steps + 1, steps - 1, np.array([np.iinfo(np.int64).min])):
        with pytest.raises(ContributionRefusedError, match=r"'a': a number is beyond the bound"):
            fixed.words(beyond, "a")
