"""A run of fedalt on a model: every client ends with its own adapter, its mixer, and what it borrows."""

from __future__ import annotations

import json

import pytest
import torch

import fedloom
from fedloom.adapters.algebra import distance, norm
from fedloom.engine.finished import evaluate_again
from fedloom.spec.load import parse
from fedloom.store.client_store import ClientStore
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.federation import tiny_federation
from tests.some import mostly_slow

SECURE = "\n[rounds]\nmax_update_norm = 100.0\n\n[secure_aggregation]\nenabled = true\n"
PRIVATE = '\n[privacy]\nunit = "example"\ndelta = 1e-5\nepsilon = 20\n'


def ran(folder, root="runs", extra="", update=None, **options):
    config = tiny_federation(folder, method="fedalt", **options)
    experiment = parse(config.read_text() + extra, where=str(config), folder=folder)
    return fedloom.run(experiment.model_copy(update=update or {}), root=folder / root)


def journal(result, kind):
    lines = (result.directory / "journal.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def kept(result, client, round):
    return ClientStore(RunDirectory.open(result.directory).clients / client).load(round)


@pytest.mark.parametrize(
    "task",
    mostly_slow(["generation", "classification", "image-classification"], "generation"),
)
def test_clients_learn_and_are_measured_with_their_own_models(task, tmp_path):
    result = ran(tmp_path, task=task)
    assert not journal(result, "dropout") + journal(result, "refused")
    assert set(result.models) == {"site-0", "site-1", "site-2"}
    if task == "generation":
        assert result.summary.federated.pooled.loss < result.summary.base.pooled.loss
    again = evaluate_again(result.directory, round=None, rows=None, generate=0).by_client
    for name, scores in result.summary.federated.clients.items():
        assert again[name].metrics["loss"] == pytest.approx(scores.loss, abs=1e-5)
    assert ran(tmp_path, "again", task=task).digest == result.digest
    assert fedloom.resume(result.directory).digest == result.digest


@pytest.mark.parametrize("extra", mostly_slow(["", SECURE, PRIVATE], "", SECURE), ids=["open", "secure", "private"])
def test_mixers_are_trained_from_the_second_round_on_and_stay(extra, tmp_path):
    result = ran(tmp_path, extra=extra)
    mixers = [
        {name: tensor for name, tensor in kept(result, "site-1", round).items() if name.startswith("mixer|")}
        for round in (1, 2, 3)
    ]
    assert not mixers[0], "there is nothing to mix yet"
    assert mixers[1].keys() == mixers[2].keys() != set()
    for name, mixer in mixers[1].items():
        assert mixer.any()
        assert 0 < float((mixers[2][name] - mixer).norm()) < 2 * float(mixer.norm()), "it goes on where it was"
    exp_avg = next(name for name in kept(result, "site-1", 1) if name.endswith("|exp_avg"))
    assert exp_avg.startswith("memory|")
    steps = [next(v for n, v in kept(result, "site-1", r).items() if n.endswith("|a|step")) for r in (1, 2, 3)]
    assert [float(step) for step in steps] == [3.0, 6.0, 9.0]


def test_a_secure_run_ends_near_the_open_one(tmp_path):
    opened, secure = ran(tmp_path, "open"), ran(tmp_path, "secure", SECURE)
    for client, scores in opened.summary.federated.clients.items():
        assert secure.summary.federated.clients[client].loss == pytest.approx(scores.loss, abs=1e-3)


def test_bases_of_unequal_bits_take_part(tmp_path):
    pytest.importorskip("bitsandbytes")
    config = tiny_federation(tmp_path, method="fedalt", rounds=2)
    experiment = fedloom.load(config)
    bits = ("none", 8, 4)
    clients = tuple(c.model_copy(update={"bits": b}) for c, b in zip(experiment.clients, bits, strict=True))
    result = fedloom.run(experiment.model_copy(update={"clients": clients}), root=tmp_path / "runs")
    assert not journal(result, "dropout") + journal(result, "refused")


@pytest.mark.slow
def test_every_setting_runs_and_is_another_model(tmp_path):
    settings = ("", 'combine = "factors"', 'mixer = "static"', 'mixer = "sum"', "train_rest = true", "mixer_rate = 0.1")
    digests = set()
    for number, line in enumerate(settings):
        config = tiny_federation(tmp_path, method="fedalt")
        text = config.read_text().replace('name = "fedalt"', f'name = "fedalt"\n{line}')
        experiment = parse(text, where=str(config), folder=tmp_path)
        result = fedloom.run(experiment, root=tmp_path / str(number))
        assert not journal(result, "dropout") + journal(result, "refused"), line
        digests.add(result.digest)
    assert len(digests) == len(settings)


def test_what_one_client_borrows_does_not_depend_on_its_own_rows(tmp_path):
    """The rest of the world of site-0 after round 1 is of the other two alone."""
    rests = []
    for name, response in (("first", "Batch 0 is lead."), ("second", "Batch 0 is gold.")):
        folder = tmp_path / name
        config = tiny_federation(folder, method="fedalt", rounds=1)
        rows = (folder / "site-0.jsonl").read_text().splitlines()
        changed = [json.dumps({**json.loads(row), "response": response}) for row in rows]
        (folder / "site-0.jsonl").write_text("\n".join(changed) + "\n")
        result = fedloom.run(fedloom.load(config), root=folder / "runs")
        rests.append({client: start.rest for client, start in result.models.items()})
    moved = {client: distance(rest, rests[1][client]) / norm(rest) for client, rest in rests[0].items()}
    assert moved["site-0"] < 1e-5, "rounding"
    assert moved["site-1"] > 1e-2


def test_the_mixers_of_two_clients_differ(tmp_path):
    result = ran(tmp_path)
    mixers = [start.mixers for start in result.models.values()]
    module = next(iter(mixers[0]))
    assert not torch.equal(mixers[0][module], mixers[1][module])


def test_a_client_that_lost_what_it_kept_is_named_where_models_are_measured(tmp_path):
    result = ran(tmp_path, rounds=2)
    (RunDirectory.open(result.directory).clients / "site-1" / "0002.safetensors").unlink()
    measured = evaluate_again(result.directory, round=None, rows=None, generate=0)
    assert sorted(measured.by_client) == ["site-0", "site-2"]
    assert "not measured: site-1, as " in measured.note
    assert "what this client kept of round 2 cannot be read" in measured.note
