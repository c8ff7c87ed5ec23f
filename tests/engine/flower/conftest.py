"""Tests of the Flower engine: a tiny federation, and a grid in memory that answers through the shipped ClientApp."""

from __future__ import annotations

import pytest

from fedloom.spec.load import load
from fedloom.testing.federation import tiny_federation

pytest.importorskip("flwr")


@pytest.fixture(autouse=True)
def inside_a_run(monkeypatch):
    """Flower's messages want to know in which run they are made."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("run_id", "task_id", "node_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)


@pytest.fixture
def pilot(tmp_path):
    return load(tiny_federation(tmp_path / "sites", rounds=2))


@pytest.fixture(scope="module")
def common_pilot(tmp_path_factory):
    """The same, for tests that write nothing into it."""
    return load(tiny_federation(tmp_path_factory.mktemp("sites"), rounds=2))
