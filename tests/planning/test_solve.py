"""The plan of all clients: each kind once, and a limit that they share."""

import sys
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedloom.errors import PlanError
from fedloom.planning.problem import ROUNDING, Limits, fits, worth
from fedloom.planning.search import GAP
from fedloom.planning.solve import solved
from tests.oracles.brute import every_choice
from tests.planning.small import client_of, problem_of

EXACT = 0.0


def plans(problem, gap=GAP):
    return {name: one.choice for name, one in solved(problem, gap).best}


def test_equal_clients_have_equal_plans_whatever_their_share_and_order():
    limits = Limits(memory_bytes=6e4, up_bytes=800.0)
    clients = [client_of(name, share, limits=limits, speed=speed) for name, share, speed in
               (("a", 1.0, 1.0), ("b", 5.0, 1.0), ("slow", 1.0, 0.2), ("c", 1.0, 1.0))]  # fmt: skip
    found = solved(problem_of(*clients))
    assert found.kinds == 2
    assert [name for name, _ in found.best] == ["a", "b", "slow", "c"]
    choices = plans(problem_of(*clients))
    assert choices["a"] == choices["b"] == choices["c"]
    assert plans(problem_of(*reversed(clients))) == choices
    assert plans(problem_of(clients[1])) == {"b": choices["a"]}, "alone as with others"


def test_the_objective_is_the_mean_over_the_data():
    clients = client_of("a", 3.0), client_of("b", 1.0, limits=Limits(up_bytes=300.0))
    found = solved(problem_of(*clients), EXACT)
    big, small = (one.worth for _, one in found.best)
    assert big > 1.5 * small
    assert found.worth == pytest.approx(0.75 * big + 0.25 * small)
    assert found.gap < 1e-6


def test_every_client_that_cannot_train_is_named():
    clients = client_of("fine"), client_of("small", memory_bytes=1e4), client_of("late", limits=Limits(seconds=0.1))
    with pytest.raises(PlanError) as caught:
        solved(problem_of(*clients))
    message = str(caught.value)
    assert "client 'small': memory" in message
    assert "client 'late': deadline" in message
    assert "fine" not in message


def test_without_the_solver_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(PlanError, match=r"pip install 'fedloom\[plan\]'"):
        solved(problem_of(client_of()))


def best_within(problem, total_bytes):
    """The largest objective of all plans that keep all limits: every choice of every client, best of equal bytes."""
    frontiers = []
    for client in problem.clients:
        best: dict[float, float] = {}
        for choice, cost in every_choice(problem, client):
            if fits(client, cost):
                best[cost.both_ways] = max(best.get(cost.both_ways, -9.0), worth(problem, choice, cost))
        frontiers.append([(size, problem.weights()[client.name] * value) for size, value in best.items()])
    plans = ([sum(part) for part in zip(*one, strict=True)] for one in product(*frontiers))
    return max((value for size, value in plans if size <= total_bytes * (1 + ROUNDING)), default=None)


@settings(max_examples=15, deadline=None)
@given(st.floats(900, 4000), st.floats(0.2, 5), st.sampled_from([0.0, 0.01]))
def test_a_shared_limit_is_kept_and_the_bound_holds(total_bytes, share, price):
    clients = client_of("a", share), client_of("b", speed=0.7, limits=Limits(memory_bytes=6e4))
    problem = replace(problem_of(*clients, second_price=price), server_bytes=total_bytes)
    expected = best_within(problem, total_bytes)
    assume(expected is not None)
    found = solved(problem, EXACT)
    assert found.total_bytes <= total_bytes * (1 + 1e-9)
    assert sum(one.cost.both_ways for _, one in found.best) == pytest.approx(found.total_bytes)
    assert found.worth <= expected + 1e-9 <= found.bound + 2e-9
    assert found.bound - found.worth < 0.2, "less than what one client is worth"


def test_a_shared_limit_that_does_not_bind_changes_nothing():
    problem = problem_of(client_of("a"), client_of("b", limits=Limits(up_bytes=500.0)))
    free = solved(problem)
    assert solved(replace(problem, server_bytes=free.total_bytes)) == free


def test_many_clients_share_what_there_is_nearly_perfectly():
    """Prices leave at most about one client's worth open, which is little of many."""
    clients = [client_of(f"{number}", share=1 + number / 10, speed=1 + number / 20) for number in range(30)]
    problem = problem_of(*clients)
    free = solved(problem)
    tight = solved(replace(problem, server_bytes=free.total_bytes / 2))
    assert free.total_bytes / 2 * 0.9 <= tight.total_bytes <= free.total_bytes / 2
    assert tight.gap < 0.02
    big, small = (dict(tight.best)[name].cost.both_ways for name in ("29", "0"))
    assert big >= small, "bytes go where there is more data"


def test_a_shared_limit_that_cannot_be_kept_says_what_is_needed():
    """The smallest message of a client: 16 numbers of 4 bytes each way, and 100 and 300 bytes around them."""
    problem = problem_of(client_of("a"), client_of("b"))
    with pytest.raises(PlanError, match=r"server_bytes: .*at least 1\.06 kB, found 1 kB\)\. 56 B more are needed"):
        solved(replace(problem, server_bytes=1000.0))
    assert solved(replace(problem, server_bytes=1056.0)).total_bytes == 1056.0
    with pytest.raises(PlanError, match="server_bytes"):
        replace(problem, server_bytes=0.0)
