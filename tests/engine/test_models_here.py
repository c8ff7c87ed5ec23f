"""Whose own models are on this machine, and what the journal says of the others."""

from __future__ import annotations

import shutil

import pytest

from fedloom.engine.drive import drive
from fedloom.engine.models_here import models_here
from fedloom.testing.engine import NAMES, pretend_experiment


def left_out(loop):
    return {record["what"]: record["reason"] for record in loop.records() if record["kind"] == "left_out"}


@pytest.mark.parametrize("method", ["fedsa", "fedalt"])
def test_a_client_that_lost_its_file_costs_nobody_else_a_model(make_loop, method):
    loop = make_loop(pretend_experiment(method))
    state = drive(loop)
    (loop.directory.clients / "b" / "0004.safetensors").unlink()
    shutil.rmtree(loop.directory.clients / "c")
    for _ in range(2):
        assert list(models_here(loop, state)) == ["a"]
    assert "0004.safetensors" in left_out(loop)["model of b"]
    assert "fedloom export KIT" in left_out(loop)["model of c"]
    assert [record["kind"] for record in loop.records()].count("left_out") == 2, "said once"


def test_one_global_model_is_nobodys_own(make_loop):
    loop = make_loop(pretend_experiment("loom"))
    assert models_here(loop, drive(loop)) == {}
    assert not left_out(loop)
    assert set(NAMES) == set(loop.clients)
