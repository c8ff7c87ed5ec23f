"""A run that also measures which layers matter."""

from __future__ import annotations

import json
import math

import pytest

import fedloom
from fedloom.errors import ConfigError
from fedloom.testing.federation import tiny_federation
from tests.some import mostly_slow

BITS = {"site-0": "none", "site-1": 8, "site-2": 4}
SECURE = "\n[secure_aggregation]\nenabled = true\n\n[rounds]\nmax_update_norm = 50.0\n"


def measuring(path, **clients):
    experiment = fedloom.load(path)
    training = experiment.training.model_copy(update={"importance": True})
    return experiment.model_copy(update={"training": training, **clients})


def records(result, kind):
    lines = [json.loads(line) for line in (result.directory / "journal.jsonl").read_text().splitlines()]
    assert not [line for line in lines if line["kind"] in ("dropout", "refused")]
    return [line for line in lines if line["kind"] == kind]


@pytest.mark.parametrize("task", mostly_slow(["generation", "classification"], "classification"))
def test_clients_with_unequal_bits_say_together_what_matters(task, tmp_path):
    path = tiny_federation(tmp_path, task=task, rounds=2)
    clients = tuple(one.model_copy(update={"bits": BITS[one.name]}) for one in fedloom.load(path).clients)
    result = fedloom.run(measuring(path, clients=clients), root=tmp_path / "runs")
    found = records(result, "importance")
    assert [record["round"] for record in found] == [1, 2]
    assert found[0]["modules"] != found[1]["modules"]
    for record in found:
        shares = record["modules"].values()
        assert math.isclose(sum(shares), 1, rel_tol=1e-3)
        assert min(shares) > 0
        assert len(set(shares)) > 1
        assert record["assumed"] == []
    assert all(record["importance_seconds"] > 0 for record in records(result, "contribution"))


def test_secure_sums_give_the_same_shares_and_measuring_the_same_model(tmp_path):
    path = tiny_federation(tmp_path, method="ffa", ranks=(2, 2, 2), rounds=2, extra=SECURE)
    secure = fedloom.run(measuring(path), root=tmp_path / "secure")
    text = path.read_text()
    path.write_text(text.replace("enabled = true", "enabled = false"))
    plain = fedloom.run(measuring(path), root=tmp_path / "plain")
    without = fedloom.run(fedloom.load(path), root=tmp_path / "without")
    assert plain.digest == without.digest
    assert records(without, "importance") == []
    first, second = ([record["modules"] for record in records(run, "importance")] for run in (plain, secure))
    assert second[0] == pytest.approx(first[0], rel=2e-4)
    assert second[1] == pytest.approx(first[1], rel=2e-2)  # of models that differ by rounding


@pytest.mark.parametrize("unit", ["example", "client"])
def test_it_is_refused_beside_a_promise_of_privacy(unit, tmp_path):
    promise = f'\n[privacy]\nunit = "{unit}"\nepsilon = 3.0\ndelta = 1e-3\n'
    path = tiny_federation(tmp_path, method="ffa", ranks=(2, 2, 2), extra=promise)
    path.write_text(path.read_text().replace("local_steps = 3", "local_steps = 3\nimportance = true"))
    with pytest.raises(ConfigError, match=r"(?s)line 15: \[training\] importance: .*without the noise"):
        fedloom.load(path)
