"""Clients whose bases have unequal numbers of bits train one model together."""

from __future__ import annotations

import json

import pytest

import fedloom
from fedloom.engine.finished import evaluate_again
from fedloom.engine.member import Member
from fedloom.testing.federation import tiny_federation

BITS = {"site-0": "none", "site-1": 8, "site-2": 4}


def mixed(folder, task, bits=BITS):
    experiment = fedloom.load(tiny_federation(folder, task=task, rounds=2))
    clients = [client.model_copy(update={"bits": bits[client.name]}) for client in experiment.clients]
    return experiment.model_copy(update={"clients": tuple(clients)})


@pytest.mark.parametrize("task", ["generation", "classification"])
def test_they_train_one_model_that_the_same_seed_gives_again(task, tmp_path):
    experiment = mixed(tmp_path, task)
    result = fedloom.run(experiment, root=tmp_path / "runs")
    lines = [json.loads(line) for line in (result.directory / "journal.jsonl").read_text().splitlines()]
    assert not [line for line in lines if line["kind"] in ("dropout", "refused")]
    started = next(line for line in lines if line["kind"] == "run_started")
    assert {name: client["bits"] for name, client in started["clients"].items()} == BITS
    if task == "generation":  # of three held-out rows of two classes a loss says little
        assert result.summary.federated.pooled.loss < result.summary.base.pooled.loss
    assert fedloom.run(experiment, root=tmp_path / "again").digest == result.digest
    again = evaluate_again(result.directory, round=None, rows=None, generate=0).by_client
    for name, scores in result.summary.federated.clients.items():
        assert again[name].metrics["loss"] == pytest.approx(scores.loss, abs=1e-5)


def test_the_bits_make_the_result_another_one(tmp_path):
    runs = [
        fedloom.run(mixed(tmp_path, "generation", bits), root=tmp_path / str(number)).digest
        for number, bits in enumerate([dict.fromkeys(BITS, "none"), BITS])
    ]
    assert len(set(runs)) == 2


def test_a_client_in_a_process_of_its_own_loads_its_own_bits_once(tmp_path):
    experiment = mixed(tmp_path, "generation")
    member = Member(tmp_path / "store")
    for _ in range(2):
        member.describe(experiment, "site-2")
    assert member.loads == 1
    assert member._halves[next(iter(member._halves))].sites.base.bits == 4
