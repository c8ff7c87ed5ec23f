"""That the planted problem is what it says, and that its clients train together as each would alone."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.aggregation.registry import METHODS
from fedloom.rounds.state import RunState

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def planted(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    import planted

    monkeypatch.setattr(planted, "ROUNDS", 2)
    monkeypatch.setattr(planted, "RESULTS", tmp_path)
    monkeypatch.setattr(planted, "CELLS", tmp_path / "cells.tmp")
    yield planted
    for name in ("planted", "planted_problem"):
        sys.modules.pop(name)


def test_the_planted_delta_is_the_answer_and_nothing_is_not(planted):
    found = planted.problem(3, planted_rank=4)
    assert found.error(found.planted) < 1e-6 > found.held_out_loss(found.planted)
    assert found.error(Adapter()) == pytest.approx(1.0) == found.held_out_loss(Adapter())


def test_clients_of_unequal_ranks_train_together_as_each_alone(planted):
    found, contender = planted.problem(3, planted_rank=4), planted.Contender("hetlora")
    method, world = METHODS["hetlora"], planted.world_of(contender, 3)
    work = planted.work_of(contender, planted.Scenario(steps=3), 0.01, 1, world)
    state = RunState(method.init(world))
    assignments = [planted.assignment_of(method, world, state, f"client {k}", work) for k in (0, 9)]
    together = planted.train(found, assignments, [0, 9])
    for assignment, position, adapter in zip(assignments, (0, 9), together, strict=True):
        (alone,) = planted.train(found, [assignment], [position])
        assert adapter.ranks == alone.ranks
        for module, factors in alone.items():
            assert factors.b.any()
            torch.testing.assert_close(adapter[module].delta(), factors.delta(), atol=1e-6, rtol=1e-4)


def test_a_run_learns_and_is_kept_for_the_next_time(planted, monkeypatch):
    contender, scenario = planted.Contender("loom"), planted.Scenario(steps=5, planted_rank=4)
    first = planted.Cells().run(contender, scenario, 0.02, 3)
    assert first["errors"] == sorted(first["errors"], reverse=True)
    assert first["error"] < 0.95 > first["loss"]
    monkeypatch.setattr(planted, "play", None)
    assert planted.Cells().run(contender, scenario, 0.02, 3) == first
    with pytest.raises(TypeError):
        planted.Cells().run(replace(contender, settings={"power": 2.0}), scenario, 0.02, 3)
