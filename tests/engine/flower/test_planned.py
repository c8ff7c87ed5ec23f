"""Runs on Flower take no experiment of which something is left to the planner."""

import pytest

from fedloom.engine.flower.simulation import simulate
from fedloom.errors import ConfigError
from fedloom.testing.engine import pretend_experiment


def test_what_is_left_to_the_planner_is_refused_before_anything_is_written(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "response": "b"}\n')
    experiment = pretend_experiment()
    clients = tuple(one.model_copy(update={"rank": "auto", "data": str(rows)}) for one in experiment.clients)
    with pytest.raises(ConfigError, match="not planned yet"):
        simulate(experiment.model_copy(update={"clients": clients}), root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
