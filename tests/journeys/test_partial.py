"""Runs in which clients leave layers out: every method trains, carries and releases what each client does train."""

from __future__ import annotations

import json

import pytest
from safetensors import safe_open

import fedloom
from fedloom.aggregation.method import Law
from fedloom.aggregation.registry import METHODS
from fedloom.engine.finished import evaluate_again, load_finished
from fedloom.testing.federation import tiny_federation
from tests.some import mostly_slow

SECURE = "[secure_aggregation]\nenabled = true\n[rounds]\nmax_update_norm = 100.0\n"
LEFT_OUT = ({"q_proj": 0}, {"v_proj": 0}, {"0.self_attn.q_proj": 0, "v_proj": 0})


def partial(folder, name, extra=""):
    """A finished run of three clients of which each leaves something else out; extra: further tables."""
    ranks = (4, 2, 1) if Law.UNEQUAL_RANKS in METHODS[name].laws else (2, 2, 2)
    config = tiny_federation(folder, method=name, ranks=ranks, rounds=2)
    config.write_text(
        config.read_text().replace("[method]", '[lora]\ntargets = ["q_proj", "v_proj"]\n[method]') + extra
    )
    experiment = fedloom.load(config)
    clients = [
        client.model_copy(update={"rank_pattern": pattern})
        for client, pattern in zip(experiment.clients, LEFT_OUT, strict=True)
    ]
    return fedloom.run(experiment.model_copy(update={"clients": tuple(clients)}), root=folder / "runs")


@pytest.mark.parametrize("name", mostly_slow(METHODS, "loom", "rbla", "ffa", "fedalt"))
def test_every_method_trains_what_each_client_trains(name, tmp_path):
    result = partial(tmp_path, name)
    lines = [json.loads(line) for line in (result.directory / "journal.jsonl").read_text().splitlines()]
    assert not [line for line in lines if line["kind"] in ("dropout", "refused")]
    assert {line["client"] for line in lines if line["kind"] == "contribution"} == {"site-0", "site-1", "site-2"}
    scores = result.summary.federated
    assert scores.pooled.loss < result.summary.base.pooled.loss
    if not METHODS[name].personal:
        again = evaluate_again(result.directory, round=None, rows=None, generate=0).by_client["site-2"].metrics
        assert again["loss"] == pytest.approx(scores.clients["site-2"].loss, abs=1e-4)


def test_layers_that_only_some_clients_train_are_in_what_is_released(tmp_path):
    result = partial(tmp_path, "loom")
    state = load_finished(result.directory).state
    assert {name for name in state.learned.delta() if name.endswith("0.self_attn.q_proj")}
    with safe_open(result.directory / "adapter" / "adapter_model.safetensors", "pt") as exported:
        names = set(exported.keys())
    assert {side for side in ("q_proj", "v_proj") if any(side in name for name in names)} == {"q_proj", "v_proj"}


@pytest.mark.parametrize("name", mostly_slow(["rbla", "loom"], "loom"))
def test_under_secure_aggregation_it_is_the_plain_run(name, tmp_path):
    plain, secure = (partial(tmp_path / kind, name, extra) for kind, extra in (("plain", ""), ("secure", SECURE)))
    assert secure.summary.federated.pooled.loss == pytest.approx(plain.summary.federated.pooled.loss, abs=2e-4)
