"""The best uniform configuration against all of them."""

from dataclasses import replace
from itertools import product

import pytest

from fedloom.planning.cost import usage
from fedloom.planning.problem import Limits, fits, worth
from fedloom.planning.uniform import best_uniform
from fedloom.planning.values import Choice
from tests.planning.small import WORK, client_of, problem_of

TIGHT = Limits(memory_bytes=6e4)


def every_uniform(problem):
    """(worth, longest round, rank, bits, batch) of those that fit every client."""
    names = [module.name for module in problem.architecture.modules]
    for rank, bits, batch in product((1, 2, 4), (32, 8, 4), (1, 2, 4)):
        total, slowest, fitting = 0.0, 0.0, True
        for client in problem.clients:
            examples = client.work.examples
            choice = Choice(tuple((name, rank) for name in names), bits, batch, examples // batch)
            cost = usage(problem.architecture, client.machine, client.work, choice)
            fitting = fitting and examples % batch == 0 and fits(client, cost)
            total += problem.weights()[client.name] * worth(problem, choice, cost)
            slowest = max(slowest, cost.seconds)
        if fitting:
            yield total, slowest, rank, bits, batch


@pytest.mark.parametrize("price", [0.0, 0.02])
@pytest.mark.parametrize("limits", [Limits(), TIGHT, Limits(seconds=3.5), Limits(up_bytes=700.0)])
def test_the_best_of_all(limits, price):
    clients = client_of("a", 2.0), client_of("b", speed=0.8, limits=limits)
    problem = problem_of(*clients, second_price=price)
    found = best_uniform(problem)
    expected = max(every_uniform(problem), key=lambda one: (one[0], -one[1]))
    assert (found.worth, found.round_seconds) == pytest.approx(expected[:2])
    assert (found.rank, found.choice.bits, found.choice.batch) == expected[2:]


def test_the_weakest_client_sets_it_for_all():
    weak = client_of("b", limits=Limits(up_bytes=500.0))
    assert best_uniform(problem_of(client_of("a"))).rank == 4
    assert best_uniform(problem_of(client_of("a"), weak)).rank == 1


def test_none_where_none_fits_everyone():
    assert best_uniform(problem_of(client_of("a"), client_of("b", memory_bytes=1e4))) is None


def test_a_batch_must_divide_the_examples_of_every_client():
    odd = replace(client_of("b"), work=replace(WORK, examples=3))
    assert best_uniform(problem_of(client_of("a"), odd)).choice.batch == 1


def test_a_rank_ends_at_the_full_rank_of_a_module():
    """Modules are 8 wide: at rank 16 they have rank 8."""
    problem = problem_of(client_of(), ranks=(8, 16), gains=(0.5, 0.6))
    found = best_uniform(problem)
    assert {rank for _, rank in found.choice.ranks} == {8}


def test_the_server_must_bear_it_too():
    """At rank 1 there are 96 numbers of 4 bytes each way, and 400 bytes around them, for each of two clients."""
    problem = problem_of(client_of("a"), client_of("b"))
    free = best_uniform(problem)
    assert free.rank == 4
    assert best_uniform(replace(problem, server_bytes=2.0 * (400 + 2 * 4 * 96))).rank == 1
    assert best_uniform(replace(problem, server_bytes=2000.0)) is None
