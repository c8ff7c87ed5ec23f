"""Runs of an engine without a model, one at a time, and what is known of them."""

from dataclasses import replace

import pytest

from fedloom.engine.drive import drive
from fedloom.engine.loop import loop_of
from fedloom.spec.dump import dump
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.engine import NAMES, PretendEngine, pretend_experiment


@pytest.fixture
def make_loop(tmp_path):
    """make_loop(name=.., method=.., observe=.., **tables): a loop of a new run, its base measured as every round."""

    def make(name="run", method="loom", observe=lambda _: None, engine=None, **tables):
        experiment = pretend_experiment(method, **tables)
        directory = RunDirectory.create(tmp_path / name, dump(experiment), {})
        engine = replace(engine or PretendEngine(NAMES), store=directory.clients)
        return loop_of(experiment, directory, engine, observe, stages=frozenset({"base", "round"}))

    return make


@pytest.fixture
def finished(make_loop):
    """The path of a run of four rounds that nobody drives."""
    loop = make_loop()
    drive(loop)
    loop.directory.close()
    return loop.directory.path
