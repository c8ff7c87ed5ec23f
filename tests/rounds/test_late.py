"""A late answer against the dense algebra: what it adds is the client's own change, in every method that takes one."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom import rng
from fedloom.adapters.factors import Factors
from fedloom.aggregation.registry import METHODS
from fedloom.aggregation.server_rule import ServerOptimizer
from fedloom.rounds.assign import training_assignments
from fedloom.rounds.late import LateAnswer, as_of_now, fold_late, late_answer, late_from_bytes, late_to_bytes
from fedloom.rounds.messages import Contribution
from fedloom.rounds.state import RunState
from fedloom.rounds.step import NO_OPTIMIZER, Tally, fold, step
from fedloom.rounds.world import world_of
from fedloom.testing.engine import MODULES, pretend_experiment

TAKING = [name for name, method in METHODS.items() if method.rebase is not None]
EXACT = ("loom", "flora", "ffa")  # those whose change of the global delta is the mean of the clients' changes
NAMES = ("a", "b", "c")
HEAD = {"score": torch.zeros(2, 3)}


def begun(name):
    experiment = pretend_experiment(name)
    world = world_of(experiment, MODULES)
    return experiment, METHODS[name], world, RunState(METHODS[name].init(world), dict(HEAD))


def answered(world_of_run, state, seed, clients=NAMES):
    """(assignment, contribution) of clients that move what they train by random amounts; examples 3, 4, .."""
    experiment, method, world, _ = world_of_run
    for examples, assignment in enumerate(training_assignments(experiment, method, world, state, clients), 3):
        draw = rng.generator(seed, assignment.client, assignment.round)

        def moved(module, factors, draw=draw, sides=assignment.trains):
            a, b = (
                side + 0.3 * torch.randn(side.shape, generator=draw) if letter in sides[module] else side
                for letter, side in (("a", factors.a), ("b", factors.b))
            )
            return Factors(a, b, factors.scaling)

        head = {name: tensor + torch.randn(tensor.shape, generator=draw) for name, tensor in assignment.head.items()}
        adapter = assignment.start.trainable.map(moved)
        yield assignment, Contribution(assignment.round, assignment.client, examples, {}, adapter, head)


def rounds(world_of_run, seed, count=1):
    """The states of some rounds in which all take part in time, and the answers to the first of them."""
    _, method, world, state = world_of_run
    states, first = [state], list(answered(world_of_run, state, seed))
    for _ in range(count):
        tally = Tally()
        for assignment, contribution in answered(world_of_run, states[-1], seed):
            tally = fold(tally, method, world, assignment, contribution)
        states.append(step(tally, method, world, states[-1]))
    return states, first


def with_late(world_of_run, state, seed, late, staleness, optimizer=NO_OPTIMIZER):
    """The next state: a and b in time, and one late answer; and the answers in time."""
    _, method, world, _ = world_of_run
    tally, fresh = Tally(), list(answered(world_of_run, state, seed, ("a", "b")))
    for assignment, contribution in fresh:
        tally = fold(tally, method, world, assignment, contribution)
    tally = fold_late(tally, method, world, state, late, "examples", staleness)
    return step(tally, method, world, state, optimizer=optimizer), fresh


def dense(adapter, module):
    return adapter[module].delta().double() if module in adapter else torch.zeros(MODULES[module]).double()


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 99), staleness=st.sampled_from([1.0, 0.5, 0.2]), age=st.integers(1, 3))
def test_the_delta_moves_by_exactly_the_weighted_changes(name, seed, staleness, age):
    run = begun(name)
    states, first = rounds(run, seed, age)
    asked, trained = first[2]
    after, fresh = with_late(run, states[-1], seed + 1, late_answer(asked, trained), staleness)
    weights = [contribution.examples for _, contribution in fresh] + [trained.examples * staleness**age]
    parts = [(one.adapter, of.start.trainable, one, of) for of, one in [*fresh, (asked, trained)]]
    for module in MODULES:
        before, changes = dense(states[-1].learned.delta(), module), 0.0
        for weight, (new, start, _, _) in zip(weights, parts, strict=True):
            changes += weight / sum(weights) * (dense(new, module) - dense(start, module))
        assert torch.allclose(dense(after.learned.delta(), module), before + changes, atol=1e-5)
    moves = sum(
        weight / sum(weights) * (one.head["score"] - of.head["score"])
        for weight, (_, _, one, of) in zip(weights, parts, strict=True)
    )
    assert torch.allclose(after.head["score"], states[-1].head["score"] + moves, atol=1e-5)


@pytest.mark.parametrize("name", EXACT)
def test_a_server_optimizer_steps_along_the_change_with_the_late_one_in_it(name):
    run = begun(name)
    states, first = rounds(run, 3, 2)
    late = late_answer(*first[2])
    whole, _ = with_late(run, states[-1], 4, late, 0.5)
    half, _ = with_late(run, states[-1], 4, late, 0.5, ServerOptimizer("momentum", 0.5, beta1=0.0))
    for module in MODULES:
        before, after = (dense(state.learned.delta(), module) for state in (states[-1], whole))
        assert (after - before).norm() > 0.1
        assert torch.allclose(dense(half.learned.delta(), module), before + (after - before) / 2, atol=1e-5)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 99), staleness=st.sampled_from([1.0, 0.5]))
def test_equal_ranks_averaged_by_factors_move_by_the_changes_of_the_factors(seed, staleness):
    run = begun("fedit")
    states, first = rounds(run, seed, 2)
    asked, trained = first[2]
    after, fresh = with_late(run, states[-1], seed + 1, late_answer(asked, trained), staleness)
    answers = [(*one, one[1].examples) for one in fresh] + [(asked, trained, trained.examples * staleness**2)]
    whole = sum(weight for _, _, weight in answers)
    for module in MODULES:
        bank = states[-1].learned.shared[module]
        for side in "ab":
            scale = 1.0 if side == "a" else asked.start.trainable[module].scaling
            changes = sum(
                weight / whole * (getattr(one.adapter[module], side) - getattr(of.start.trainable[module], side))
                for of, one, weight in answers
            )
            expected = getattr(bank, side) + scale * changes
            assert torch.allclose(getattr(after.learned.shared[module], side), expected, atol=1e-5)


@pytest.mark.parametrize("name", TAKING)
def test_the_same_change_from_the_present_start_counts_the_same(name):
    """Where the state has not moved at all, a late answer is the answer itself: the laws of the method hold for it."""
    run = begun(name)
    _, method, world, _ = run
    states, _ = rounds(run, 5)
    late = list(answered(run, states[-1], 6))[2]
    answer = replace(late_answer(*late), round=states[-1].round)
    after, fresh = with_late(run, states[-1], 6, answer, 1.0)
    tally = Tally()
    for assignment, contribution in [*fresh, late]:
        tally = fold(tally, method, world, assignment, contribution)
    usual = step(tally, method, world, states[-1])
    for module in MODULES:
        one, other = (dense(state.learned.delta(), module) for state in (after, usual))
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", TAKING)
def test_who_learned_nothing_sends_its_present_start(name):
    """And not the old one, by which it would undo what the others learned since."""
    run = begun(name)
    _, method, world, _ = run
    states, first = rounds(run, 7, 2)
    asked, trained = first[2]
    idle = replace(late_answer(asked, trained), new=asked.start.trainable, head=asked.head)
    assignment, contribution = as_of_now(method, world, states[-1], idle)
    for module in MODULES:
        expected = dense(assignment.start.trainable, module)
        assert torch.allclose(dense(contribution.adapter, module), expected, atol=1e-5)
        assert not torch.allclose(dense(states[-1].learned.delta(), module), dense(states[0].learned.delta(), module))
    assert torch.equal(contribution.head["score"], states[-1].head["score"])


def test_it_is_put_away_bit_for_bit():
    run = begun("loom")
    _, first = rounds(run, 9)
    answer = late_answer(*first[1])
    again = late_from_bytes(late_to_bytes(answer), where="here")
    assert isinstance(again, LateAnswer)
    assert (again.round, again.client, again.examples) == (1, "b", 4)
    assert again.new.digest() == answer.new.digest()
    assert again.start.digest() == answer.start.digest()
    assert all(torch.equal(again.head[key], answer.head[key]) for key in HEAD)
    assert all(torch.equal(again.head_start[key], answer.head_start[key]) for key in HEAD)
