"""Menus, clients and problems: what cannot be planned with is refused; the objective by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedloom.errors import PlanError
from fedloom.planning.cost import Usage, usage
from fedloom.planning.problem import Limits, Menu, Problem, covered, fits, pairs, saturating, settings, worth
from fedloom.planning.values import Choice
from tests.planning.small import SMALL, WORK, client_of, problem_of

CHOICE = Choice((("0.q", 1), ("1.up", 4)), bits=4, batch=2, accumulation=2)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=10, unique=True).map(sorted), st.floats(0.1, 100))
def test_a_saturating_gain_is_a_menu(ranks, half):
    gains = saturating(ranks, half)
    assert Menu(ranks=tuple(ranks), gains=gains).gain(ranks[-1]) == gains[-1] < 1
    assert saturating([8], 8.0) == (0.5,)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"ranks": (2, 1, 4)}, r"menu\.ranks"),
        ({"ranks": (1, 2)}, r"a gain for each rank .*expected 2, found 3"),
        ({"gains": (0.1, 0.1, 0.3)}, r"menu\.gains"),
        ({"gains": (0.1, 0.2, 0.9)}, r"ever more slowly"),
        ({"gains": (0.1, float("nan"), 0.3)}, r"menu\.gains"),
        ({"batches": ()}, "batches"),
        ({"batches": (0, 1)}, r"menu\.batches"),
        ({"kept": ((5, 1.0),)}, r"menu\.kept"),
        ({"kept": ((4, 1.5),)}, r"menu\.kept"),
        ({"kept": ((4, 1.0), (4, 0.9))}, "kept"),
        ({"second_price": -0.1}, "second_price"),
    ],
)
def test_a_menu_that_cannot_be(changed, named):
    with pytest.raises(PlanError, match=named):
        replace(SMALL, **changed)


@pytest.mark.parametrize("importance", [(1.0,), (1.0, 2.0, -1.0, 1.0), (0.0,) * 4, (1.0, float("inf"), 1.0, 1.0)])
def test_importance_that_cannot_be(importance):
    with pytest.raises(PlanError, match="importance"):
        problem_of(client_of(), importance=importance)


def test_clients_have_names_of_their_own_and_limits_above_zero():
    with pytest.raises(PlanError, match="each once"):
        problem_of(client_of("a"), client_of("a"))
    with pytest.raises(PlanError, match="up_bytes"):
        Limits(up_bytes=0)
    with pytest.raises(PlanError, match="share"):
        client_of(share=0.0)


def test_the_objective_by_hand():
    """Importance 1 of 10 at g(1) = 1/5 and 3 of 10 at g(4) = 1/2; 4 bits keep 0.95; a second costs 0.01."""
    problem = problem_of(client_of(), second_price=0.01)
    assert covered(problem, CHOICE) == pytest.approx(0.1 / 5 + 0.3 / 2)
    assert worth(problem, CHOICE, Usage(0, 3, 0, 0)) == pytest.approx(0.95 * 0.17 - 0.03)
    assert problem.weights() == {"one": 1.0}


def test_what_is_not_on_the_menu_has_no_worth():
    problem = problem_of(client_of())
    for wrong in (replace(CHOICE, bits=16), replace(CHOICE, ranks=(("0.q", 3),))):
        with pytest.raises(PlanError, match="may not be chosen"):
            worth(problem, wrong, Usage(0, 3, 0, 0))


def test_memory_is_limited_by_the_machine_and_by_the_limit():
    roomy, tight = client_of(memory_bytes=5e5), client_of(memory_bytes=5e5, limits=Limits(memory_bytes=1e5))
    assert (roomy.allowed()[0], tight.allowed()[0]) == (5e5, 1e5)
    needed = Usage(2e5, 1, 1, 1)
    assert fits(roomy, needed)
    assert not fits(tight, needed)


@pytest.mark.parametrize("limit", ["memory_bytes", "seconds", "up_bytes", "down_bytes"])
def test_every_limit_counts_and_holds_to_the_byte(limit):
    problem, client = problem_of(client_of()), client_of()
    cost = usage(problem.architecture, client.machine, client.work, CHOICE)
    assert fits(replace(client, limits=Limits(**{limit: getattr(cost, limit)})), cost)
    assert not fits(replace(client, limits=Limits(**{limit: 0.999 * getattr(cost, limit)})), cost)


def test_batches_divide_the_examples_of_a_step():
    problem, client = problem_of(client_of(), batches=(1, 2, 3, 4, 8)), client_of()
    assert {batch * passes for _, batch, passes in pairs(problem, client)} == {4}
    assert [batch for bits, batch, _ in pairs(problem, client) if bits == 32] == [1, 2, 4]
    assert len(settings(problem, client)) == 3 * 3 * 2, "bits, batches, first blocks"
    odd = replace(client, work=replace(WORK, examples=5))
    with pytest.raises(PlanError, match=r"client 'one': no batch on the menu divides .* divisor of 5"):
        pairs(problem_of(odd, batches=(2, 4)), odd)


def test_bits_that_the_machine_cannot_hold_are_not_chosen():
    problem = problem_of(client_of(), kept=((16, 1.0), (4, 0.9)))
    assert {bits for bits, _, _ in pairs(problem, problem.clients[0])} == {4}
    with pytest.raises(PlanError, match=r"no bits were measured \(expected \[16\], found \[32, 8, 4\]\)"):
        pairs(problem_of(client_of(), kept=((16, 1.0),)), client_of())


def test_only_proportions_of_shares_and_importance_count():
    clients = client_of("a", share=3.0), client_of("b", share=1.0)
    problem = problem_of(*clients, importance=(2.0, 0.0, 0.0, 6.0))
    assert problem.weights() == {"a": 0.75, "b": 0.25}
    assert problem.values().tolist() == [0.25, 0.0, 0.0, 0.75]
    assert isinstance(problem, Problem)
