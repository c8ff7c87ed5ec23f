"""Attacks do what they say, and an engine under attack is the same engine for everybody else."""

import pytest
import torch

from fedloom.adapters.algebra import cosine, distance, norm, subtract
from fedloom.aggregation.registry import METHODS
from fedloom.rounds.assign import evaluation_assignments, training_assignments
from fedloom.rounds.robust import change
from fedloom.rounds.state import RunState
from fedloom.rounds.validate import validate
from fedloom.rounds.world import world_of
from fedloom.testing.attacks import (
    Attacked,
    backdoor,
    colluding,
    free_rider,
    label_flip,
    random_change,
    scaled,
    sign_flip,
)
from fedloom.testing.engine import NAMES, PretendEngine, pretend_experiment


def asked_of(method="loom"):
    engine, experiment = PretendEngine(NAMES), pretend_experiment(method)
    world = world_of(experiment, engine.modules)
    state = RunState(METHODS[method].init(world), engine.describe().head)
    parts = (experiment, METHODS[method], world, state)
    return engine, [*training_assignments(*parts, NAMES), *evaluation_assignments(*parts, NAMES)]


def changes(engine, asked):
    return [change(reply.assignment, reply.contribution) for reply in engine.exchange(asked)][: len(NAMES)]


def test_only_what_attackers_trained_is_changed():
    engine, asked = asked_of()
    attacked = Attacked(engine, ("b",), sign_flip())
    assert attacked.together == engine.together
    assert attacked.describe().rows == engine.describe().rows
    for honest, sent in zip(engine.exchange(asked), attacked.exchange(asked), strict=True):
        theirs = (sent.assignment.client, sent.assignment.kind) == ("b", "train")
        assert (honest.contribution.adapter.digest() != sent.contribution.adapter.digest()) == theirs
        if theirs:
            start, head = honest.assignment.head["score.weight"], honest.contribution.head["score.weight"]
            assert torch.equal(sent.contribution.head["score.weight"], 2 * start - head)
        else:
            assert sent.contribution.metrics == honest.contribution.metrics


@pytest.mark.parametrize("method", ["ffa", "loom", "rolora"])
@pytest.mark.parametrize("attack", [scaled(), sign_flip(), random_change(), free_rider, colluding()])
def test_the_server_does_not_refuse_an_attack_by_its_form(method, attack):
    engine, asked = asked_of(method)
    for reply in Attacked(engine, NAMES, attack).exchange(asked[:3]):
        validate(reply.contribution, reply.assignment, rows=10)


def test_attacks_by_their_deltas():
    """With ffa the delta is linear in what is trained."""
    engine, asked = asked_of("ffa")
    honest = changes(engine, asked)
    loud, opposite, noise, idle = (
        changes(Attacked(engine, NAMES, attack), asked)
        for attack in (scaled(100), sign_flip(), random_change(), free_rider)
    )
    for number, one in enumerate(honest):
        assert distance(loud[number], one) == pytest.approx(99 * norm(one), rel=1e-4)
        assert norm(subtract(opposite[number], one)) == pytest.approx(2 * norm(one), rel=1e-4)
        assert abs(cosine(noise[number], one)) < 0.6
        assert norm(idle[number]) == 0


def test_those_who_collude_say_the_same_whatever_their_rank():
    engine, asked = asked_of("ffa")
    together = changes(Attacked(engine, NAMES, colluding(factor=3)), asked)
    apart = changes(engine, asked)
    for module in together[0]:
        lines = [found[module].scaling * found[module].b @ found[module].a for found in together]
        ranks = [torch.linalg.matrix_rank(line, rtol=1e-4).item() for line in lines]
        assert ranks == [1, 1, 1]
        left = [torch.linalg.svd(line).U[:, 0] for line in lines]
        assert abs(left[0] @ left[2]) == pytest.approx(1, abs=1e-4)
    assert norm(together[0]) > norm(apart[0])


ROWS = [{"text": "one", "label": "x"}, {"text": "two", "label": "y"}, {"text": "three", "label": "z"}]


def test_attacks_on_rows():
    assert [row["label"] for row in label_flip(ROWS, ("x", "y", "z"))] == ["y", "z", "x"]
    poisoned = backdoor(ROWS, "cf", "z", share=0.67)
    assert poisoned == [{"text": "cf one", "label": "z"}, {"text": "cf two", "label": "z"}, ROWS[2]]
    assert ROWS[0] == {"text": "one", "label": "x"}
