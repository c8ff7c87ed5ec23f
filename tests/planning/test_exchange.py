"""Pairs of changes: what fits, what is better, and what greed alone does not find."""

import numpy as np
import pytest

from fedloom.planning.bounds import priced, priced_at
from fedloom.planning.exchange import exchanged
from fedloom.planning.knapsack import Knapsack
from tests.planning.test_bounds import best_of_sack, random_sack


def test_one_module_gives_way_to_another():
    sack = Knapsack(np.array([[6.0], [5.0], [5.0]]), np.array([[[0.6], [0.5], [0.5]]]), np.ones(1), 0.0)
    about = priced_at(sack, np.array([10.0]))
    assert exchanged(sack, about, np.array([-1, 0, -1])).tolist() == [-1, 0, 0]
    stuck = np.array([0, -1, -1])
    assert exchanged(sack, about, stuck).tolist() == stuck.tolist(), "three would have to change"


@pytest.mark.parametrize("seed", range(10))
def test_it_never_gets_worse_and_always_fits(seed):
    sack = random_sack(np.random.default_rng(seed), limits=3)
    about = priced(sack, np.zeros(3), 40)
    poor = np.full(6, -1)
    poor[seed % 6] = 0
    found = exchanged(sack, about, poor)
    value, used = sack.total(found)
    assert sack.holds(used)
    assert sack.total(poor)[0] < 0.7 * value
    assert value >= 0.9 * best_of_sack(sack)
    assert sack.total(exchanged(sack, about, found))[0] == pytest.approx(value), "nothing is left to exchange"
