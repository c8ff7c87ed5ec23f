"""Whole runs on a GPU. conftest.py hides it from the tests, so it takes a call of its own:

FEDLOOM_TEST_GPU=1 python -m pytest tests/journeys/test_gpu.py
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import fedloom
from fedloom.engine.losses import pooled_losses
from fedloom.engine.sites import load_sites
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.federation import tiny_federation

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU is to be seen; FEDLOOM_TEST_GPU=1 shows those that there are"
)
PRIVATE = '\n[privacy]\nunit = "example"\ndelta = 1e-5\nnoise_multiplier = 1.0\n'


def ran_here(pilot, **clients):
    """A run on the GPU; clients: further fields of every client."""
    experiment = fedloom.load(pilot)
    changed = tuple(client.model_copy(update=clients) for client in experiment.clients)
    return fedloom.run(experiment.model_copy(update={"clients": changed}), root=pilot.parent / "here").directory


def ran_on_the_processor(pilot):
    command = [sys.executable, "-m", "fedloom", "run", str(pilot), "--root", str(pilot.parent / "there")]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=hidden)
    assert done.returncode == 0, done.stderr
    return pilot.parent / "there" / "tiny"


def losses(path):
    """round -> pooled loss on the rows held out, of a run in which every client took part."""
    records = RunDirectory.open(path).journal.records()
    assert not [record for record in records if record.kind in ("dropout", "refused")]
    return pooled_losses(records)


@pytest.mark.parametrize("method", ["loom", "fedalt"])
def test_the_loss_is_about_that_of_the_processor(method, tmp_path):
    pilot = tiny_federation(tmp_path, rounds=2, method=method)
    assert load_sites(fedloom.load(pilot)).base.device.type == "cuda"
    here, there = losses(ran_here(pilot)), losses(ran_on_the_processor(pilot))
    assert here.keys() == there.keys()
    learned = there[0] - there[2]
    assert learned > 0
    for round, loss in there.items():
        assert here[round] == pytest.approx(loss, abs=0.1 * learned)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_base_in_few_bits_learns(bits, tmp_path):
    pytest.importorskip("bitsandbytes")
    found = losses(ran_here(tiny_federation(tmp_path, rounds=2), bits=bits))
    assert found[2] < found[0]


def test_it_trains_under_a_promise_for_each_example(tmp_path):
    path = ran_here(tiny_federation(tmp_path, rounds=2, rows=40, ranks=(4, 4), method="ffa", extra=PRIVATE))
    found = losses(path)
    assert found[0] != found[2]
    sent = [record for record in RunDirectory.open(path).journal.records() if record.kind == "contribution"]
    assert len(sent) == 4
    assert all(record["epsilon"] > 0 for record in sent)
