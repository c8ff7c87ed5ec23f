"""The arrays say what the formulas say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.planning.cost import usage
from fedloom.planning.knapsack import knapsack, knapsacks
from fedloom.planning.problem import ROUNDING, worth
from fedloom.planning.values import Choice
from tests.planning.small import small_problems


@settings(max_examples=60, deadline=None)
@given(small_problems(), st.data())
def test_worth_and_cost_of_any_choice(problem, data):
    client, modules, ladder = problem.clients[0], problem.architecture.modules, problem.menu.ranks
    sacks = knapsacks(problem, client)
    k = data.draw(st.integers(0, len(sacks.pairs) - 1))
    picked = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=4, max_size=4).filter(lambda p: max(p) >= 0)))
    ranks = tuple((module.name, ladder[j]) for module, j in zip(modules, picked, strict=True) if j >= 0)
    choice = Choice(ranks, *sacks.pairs[k])
    cost = usage(problem.architecture, client.machine, client.work, choice)
    first = min(module.block for module, j in zip(modules, picked, strict=True) if j >= 0)
    d = sacks.blocks.index(first)
    trained = np.flatnonzero(picked >= 0)
    used = sacks.cost(k)[:, trained, picked[trained]].sum(1)
    value = sacks.constant[k, d] + sacks.worth[k][trained, picked[trained]].sum()
    assert value == pytest.approx(worth(problem, choice, cost))
    for share, limit, room in zip(cost.values(), client.allowed(), sacks.room[k, d] - used, strict=True):
        expected = 1 + ROUNDING - (share / limit if np.isfinite(limit) else 0)
        assert room == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(small_problems())
def test_what_does_not_fit_alone_or_lies_too_low_is_impossible(problem):
    sacks = knapsacks(problem, problem.clients[0])
    for k in range(len(sacks.pairs)):
        for d, first in enumerate(sacks.blocks):
            sack = knapsack(sacks, k, d)
            for m, module in enumerate(problem.architecture.modules):
                for j in range(len(problem.menu.ranks)):
                    alone = (sack.cost[:, m, j] <= sack.room).all() and module.block >= first
                    assert (sack.worth[m, j] > -1e29) == alone
