"""Runs of an engine without a model, one at a time."""

import shutil
from dataclasses import replace

import pytest

from fedloom.engine.drive import drive
from fedloom.engine.loop import loop_of
from fedloom.spec.dump import dump
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.engine import NAMES, PretendEngine, pretend_experiment


def loop_in(folder, name="run", method="loom", observe=lambda _: None, engine=None, **tables):
    experiment = pretend_experiment(method, **tables)
    directory = RunDirectory.create(folder / name, dump(experiment), {})
    engine = replace(engine or PretendEngine(NAMES), store=directory.clients)
    return loop_of(experiment, directory, engine, observe, stages=frozenset({"base", "round"}))


@pytest.fixture
def make_loop(tmp_path):
    """make_loop(name=.., method=.., observe=.., **tables): a loop of a new run, its base measured as every round."""
    return lambda **options: loop_in(tmp_path, **options)


@pytest.fixture(scope="session")
def four_rounds(tmp_path_factory):
    loop = loop_in(tmp_path_factory.mktemp("dashboard"))
    drive(loop)
    loop.directory.close()
    return loop.directory.path


@pytest.fixture
def finished(four_rounds, tmp_path):
    """The path of a run of four rounds that nobody drives; a copy of this test's own."""
    return shutil.copytree(four_rounds, tmp_path / "run")
