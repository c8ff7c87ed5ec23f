"""What a further round may gain: exact on a geometric curve, and silent where the curve does not say."""

import math
from itertools import pairwise

import pytest

from fedloom.evaluation.scores import Scores
from fedloom.report.decisions.returns import Gain, gains_of, outlook
from fedloom.report.values import RoundSummary, Stage


def measured(losses, clients=("a", "b")):
    return [
        RoundSummary(number, scores=Stage({name: Scores(loss, 10, 1) for name in clients}))
        for number, loss in losses.items()
    ]


def geometric(rounds, factor=0.5, first=0.4):
    """Losses after each of these rounds, the sum of all gains done one by one."""
    return {number: 3.0 - sum(first * factor**one for one in range(number)) for number in rounds}


@pytest.mark.parametrize("rounds", [range(6), range(9), (0, 2, 4, 6, 8)])
def test_a_geometric_curve_is_continued_exactly(rounds):
    found = outlook(gains_of(measured(geometric(rounds))))
    last = max(rounds)
    even = {later - earlier for earlier, later in pairwise(rounds)} == {1}
    assert found.factor == pytest.approx(0.5)
    if even:
        assert found.next_gain == pytest.approx((0.4 * 0.5**last,) * 2)
        assert found.all_further == pytest.approx((0.8 * 0.5**last,) * 2)


def test_the_range_is_what_leaving_out_one_gain_makes_of_it():
    gains = [Gain(number, 2.0, 1, value) for number, value in enumerate((0.4, 0.22, 0.1, 0.06, 0.02), 1)]
    found = outlook(gains)
    low, high = found.next_gain
    assert 0 < low < high < 0.06
    assert found.all_further[0] < found.all_further[1]
    worst = outlook(gains[:-1]).next_gain  # another curve without the last round
    assert worst != found.next_gain


@pytest.mark.parametrize(
    ("losses", "why"),
    [
        ({0: 3.0, 1: 2.5, 2: 2.2, 3: 2.0}, "few"),
        ({0: 3.0, 1: 2.5, 2: 2.2, 3: 2.3, 4: 2.1}, "worse"),
        ({0: 3.0, 1: 2.8, 2: 2.6, 3: 2.4, 4: 2.2}, "steady"),
        ({0: 3.0, 1: 2.9, 2: 2.7, 3: 2.4, 4: 2.0}, "steady"),
        ({}, "few"),
    ],
)
def test_there_is_no_answer_where_the_curve_gives_none(losses, why):
    assert outlook(gains_of(measured(losses))) == why


def test_only_rounds_that_the_same_clients_measured_are_compared():
    rounds = [*measured({0: 3.0, 1: 2.5}, ("a",)), *measured({2: 2.2, 4: 2.0})]
    assert gains_of(rounds) == (Gain(4, 2.0, 2, pytest.approx(0.1)),)
    assert gains_of(measured({0: 3.0, 1: math.nan, 2: 2.0})) == (Gain(2, 2.0, 2, 0.5),)
    assert gains_of([]) == ()
