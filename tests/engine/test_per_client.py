"""Each client's own model beside training alone and shared models."""

from __future__ import annotations

import pytest

import fedloom
from fedloom.engine.per_client import per_client
from fedloom.errors import RunError
from fedloom.testing.federation import tiny_federation

SITES = ("site-0", "site-1")


def ran(folder, method="fedalt", **evaluation):
    experiment = fedloom.load(tiny_federation(folder, method=method, ranks=(2, 1), rounds=2))
    changed = experiment.evaluation.model_copy(update=evaluation)
    return fedloom.run(experiment.model_copy(update={"evaluation": changed}), root=folder / "runs")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """(result, what was found, folder)"""
    folder = tmp_path_factory.mktemp("per-client")
    result = ran(folder)
    return result, per_client(result.directory, ["fedit", "loom"]), folder


def test_every_model_is_measured_on_every_clients_rows(compared):
    result, found, _ = compared
    assert list(found) == ["alone", "fedit", "loom", "fedalt"]
    assert all(list(by_client) == list(SITES) for by_client in found.values())
    assert found["fedalt"] == result.summary.federated.clients


def test_alone_is_what_a_run_with_baselines_measures(compared, tmp_path):
    _, found, _ = compared
    baseline = ran(tmp_path, baselines=True)
    for client in SITES:
        assert found["alone"][client].loss == pytest.approx(baseline.summary.alone.clients[client].loss, abs=1e-6)
    again = per_client(baseline.directory, [])
    assert again["alone"] == baseline.summary.alone.clients
    assert not (baseline.directory / "compared").exists(), "nothing was trained again"


def test_a_shared_model_is_that_of_a_run_of_its_own(compared, tmp_path):
    _, found, _ = compared
    other = ran(tmp_path, method="loom")
    for client in SITES:
        wanted = other.summary.federated.clients[client].loss
        assert found["loom"][client].loss == pytest.approx(wanted, abs=1e-6)


def test_a_second_call_trains_nothing(compared):
    result, found, _ = compared
    steps = []
    again = per_client(result.directory, ["fedit", "loom"], observe=lambda event: steps.append(type(event).__name__))
    assert again == found
    assert "StepDone" not in steps


@pytest.mark.parametrize(
    ("method", "against", "said"),
    [
        ("loom", [], r"loom gives all clients one model.*a run of fedalt, fedsa.*Leave --per-client out"),
        ("fedalt", ["fedalt"], "fedalt is the run's own method"),
    ],
)
def test_what_cannot_be_compared_is_said(method, against, said, tmp_path):
    result = ran(tmp_path, method=method)
    with pytest.raises(RunError, match=said):
        per_client(result.directory, against)
