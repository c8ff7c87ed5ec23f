"""The server half of a round: weights, heads, too few contributions."""

from dataclasses import replace

import pytest
import torch

from fedloom.aggregation.registry import method
from fedloom.aggregation.server_rule import ServerOptimizer
from fedloom.errors import RunError
from fedloom.rounds.assign import training_assignments
from fedloom.rounds.messages import Contribution
from fedloom.rounds.step import Tally, fold, step

FLORA = method("flora")
EXAMPLES = {"site-a": 1, "site-b": 3}


def contributions(experiment, world, state):
    """(assignment, contribution) of both clients: b = ones x (1 for a, 2 for b), heads alike."""
    for assignment in training_assignments(experiment, FLORA, world, state, EXAMPLES):
        value = 1.0 if assignment.client == "site-a" else 2.0
        adapter = assignment.start.trainable.map(
            lambda _, f, value=value: type(f)(f.a, torch.full_like(f.b, value), f.scaling)
        )
        head = {name: torch.full_like(tensor, value) for name, tensor in assignment.head.items()}
        examples = EXAMPLES[assignment.client]
        yield assignment, Contribution(assignment.round, assignment.client, examples, {}, adapter, head)


def folded(experiment, world, state):
    tally = Tally()
    for assignment, contribution in contributions(experiment, world, state):
        tally = fold(tally, FLORA, world, assignment, contribution)
    return tally


def test_the_next_state_is_the_mean_by_examples(experiment, world, state):
    after = step(folded(experiment, world, state), FLORA, world, state)
    assert after.round == 1
    assert torch.allclose(after.head["score.weight"], torch.full((2, 8), (1 * 1.0 + 3 * 2.0) / 4))
    expected = sum(
        contribution.examples / 4 * contribution.adapter["layers.0.q_proj"].delta().double()
        for _, contribution in contributions(experiment, world, state)
    )
    assert torch.allclose(after.learned.delta()["layers.0.q_proj"].delta().double(), expected, atol=1e-6)


def test_uniform_weighting_counts_clients_alike_heads_too(experiment, world, state):
    tally = Tally()
    for assignment, contribution in contributions(experiment, world, state):
        tally = fold(tally, FLORA, world, assignment, contribution, "uniform")
    after = step(tally, FLORA, world, state)
    assert torch.allclose(after.head["score.weight"], torch.full((2, 8), 1.5))
    expected = sum(0.5 * c.adapter["layers.0.q_proj"].delta() for _, c in contributions(experiment, world, state))
    assert torch.allclose(after.learned.delta()["layers.0.q_proj"].delta(), expected, atol=1e-6)


def test_the_optimizer_makes_its_own_step_of_the_change(experiment, world, state):
    tally, half = folded(experiment, world, state), ServerOptimizer("momentum", 0.5, beta1=0.9)
    plain, slowed = (step(tally, FLORA, world, state, optimizer=rule) for rule in (ServerOptimizer(), half))
    module = "layers.0.q_proj"
    assert torch.allclose(
        slowed.learned.delta()[module].delta(), 0.5 * plain.learned.delta()[module].delta(), atol=1e-6
    )
    assert torch.allclose(slowed.learned.momentum[module].delta(), plain.learned.delta()[module].delta(), atol=1e-6)
    before, after = state.head["score.weight"], plain.head["score.weight"]
    assert not torch.equal(after, before)
    assert torch.allclose(slowed.head["score.weight"], before + 0.5 * (after - before))
    assert torch.allclose(slowed.learned.extras["server.first|head|score.weight"], after - before)


def test_too_few_contributions_fail_the_round_by_name(experiment, world, state):
    with pytest.raises(RunError, match=r"round 1.*nobody"):
        step(Tally(), FLORA, world, state)
    with pytest.raises(RunError, match="at least 3"):
        step(folded(experiment, world, state), FLORA, world, state, min_clients=3)


def test_a_client_alone_keeps_its_head(experiment, world, state):
    assignment, contribution = next(contributions(experiment, world, state))
    tally = fold(Tally(), FLORA, world, assignment, replace(contribution, examples=7))
    after = step(tally, FLORA, world, state)
    assert torch.equal(after.head["score.weight"], contribution.head["score.weight"])


def test_it_is_known_in_which_round_each_client_counted_last(experiment, world, state):
    assert state.last_rounds == {}
    before = replace(state, last_rounds={"site-a": 0, "site-c": 0})
    assignment, contribution = next(contributions(experiment, world, state))
    after = step(fold(Tally(), FLORA, world, assignment, contribution), FLORA, world, before)
    assert after.last_rounds == {"site-a": 1, "site-c": 0}


def test_a_tally_is_folded_into_once(experiment, world, state):
    sent = list(contributions(experiment, world, state))
    first = Tally()
    fold(first, FLORA, world, *sent[0])
    with pytest.raises(AssertionError, match="before"):
        fold(first, FLORA, world, *sent[1])
