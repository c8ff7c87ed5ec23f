"""A run directory and a loop around the engine without a model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedloom.engine.loop import loop_of
from fedloom.spec.dump import dump
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.engine import NAMES, PretendEngine


@pytest.fixture
def make_loop(tmp_path):
    """make_loop(experiment, engine=..., name=...) -> a loop; a name used before opens that run again."""

    def make(experiment, engine=None, name="run", observe=lambda _: None, facts=None, **limits):
        path = tmp_path / name
        if path.exists():
            directory = RunDirectory.open(path, to_write=True)
        else:
            directory = RunDirectory.create(path, dump(experiment), facts or {})
        engine = replace(engine or PretendEngine(NAMES), store=directory.clients)
        return loop_of(experiment, directory, engine, observe, **limits)

    return make
