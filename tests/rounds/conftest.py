"""A small federation without any model: two clients of unequal rank, two modules, one head."""

from __future__ import annotations

import pytest
import torch

from fedloom import rng
from fedloom.aggregation.registry import method
from fedloom.rounds.assign import training_assignments
from fedloom.rounds.messages import Contribution
from fedloom.rounds.state import RunState
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import ClientTable, Experiment, MethodTable

MODULES = {"layers.0.q_proj": (6, 8), "layers.0.v_proj": (4, 8)}


@pytest.fixture
def experiment() -> Experiment:
    clients = (ClientTable(name="site-b", rank=2, data="b.jsonl"), ClientTable(name="site-a", rank=3, data="a.jsonl"))
    return Experiment(clients=clients, method=MethodTable(name="flora"))


@pytest.fixture
def world(experiment):
    return world_of(experiment, MODULES)


@pytest.fixture
def state(world):
    return RunState(method("flora").init(world), {"score.weight": torch.zeros(2, 8)})


@pytest.fixture
def assignment(experiment, world, state):
    return next(iter(training_assignments(experiment, method("flora"), world, state, ["site-a"])))


@pytest.fixture
def contribution(assignment):
    return trained(assignment)


def trained(assignment, examples: int = 5) -> Contribution:
    """What a client would send after moving everything by a random amount."""
    draw = rng.generator(assignment.seed, "test")

    def moved(module, factors):
        return type(factors)(
            factors.a + torch.randn(factors.a.shape, generator=draw),
            factors.b + torch.randn(factors.b.shape, generator=draw),
            factors.scaling,
        )

    return Contribution(
        round=assignment.round,
        client=assignment.client,
        examples=examples,
        metrics={"loss": 1.0},
        adapter=assignment.start.trainable.map(moved),
        head={name: tensor + 1 for name, tensor in assignment.head.items()},
    )
