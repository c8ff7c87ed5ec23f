"""Disks that are full, and small states of a run."""

import errno
import os

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.world import GlobalState
from fedloom.spec.dump import dump
from fedloom.spec.experiment import ClientTable, Experiment
from fedloom.store.run_directory import RunDirectory


@pytest.fixture
def full_disk(monkeypatch):
    """full_disk(after): from the given write on, the disk takes half of what it is given and then nothing."""

    def fill(after=0):
        real, calls = os.write, []

        def write(descriptor, data):
            calls.append(data)
            if len(calls) <= after:
                return real(descriptor, data)
            if len(calls) == after + 1:
                return real(descriptor, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "write", write)
        return monkeypatch.undo

    return fill


@pytest.fixture
def experiment():
    return Experiment(clients=(ClientTable(name="a", data="hf:x"), ClientTable(name="b.c", data="/gone/x.csv")))


@pytest.fixture
def state():
    """state(round): a state with something in each of its parts."""

    def state_of(round):
        def adapter(scale):
            a = torch.arange(6.0).reshape(2, 3) * scale
            return Adapter({"layer.q": Factors(a, torch.ones(4, 2, dtype=a.dtype) * round, 1.5)})

        return GlobalState(
            shared=adapter(1.0),
            trunk=adapter(2.0),
            clients={"a": adapter(3.0), "b.c": Adapter()},
            momentum=adapter(4.0),
            ranks={"a": {"layer.q": round}},
            extras={"momentum": torch.tensor([1.0, float(round)]), "steps": torch.tensor(round)},
            rounds=round,
        )

    return state_of


@pytest.fixture
def run(tmp_path, experiment):
    """A new run directory, locked, and closed after the test."""
    with RunDirectory.create(tmp_path / "runs" / "pilot", dump(experiment), {"base_digest": "abc"}) as directory:
        yield directory


@pytest.fixture
def commit(run, state):
    """commit(round): what the loop does after a round."""

    def commit_round(round):
        digest = run.save_round(round, state(round), {"weight": torch.full((2,), float(round))}, {"loss": 1.0 / round})
        run.journal.append("round_committed", round=round, digest=digest)
        return digest

    return commit_round
