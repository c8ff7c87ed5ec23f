"""Secure aggregation over Flower's messages: the run of one process, with clients that go away in the middle."""

from __future__ import annotations

from dataclasses import replace

import pytest

import fedloom
from fedloom.adapters.algebra import norm, subtract
from fedloom.engine.flower.host import FlowerHost, Patience, run_with
from fedloom.engine.flower.simulation import Simulated, simulate
from fedloom.engine.flower.wire import from_record
from fedloom.engine.run import run
from fedloom.errors import RunError
from fedloom.privacy.secagg.session import AGREEMENT, DELIVERY
from fedloom.spec.secure_table import SecureAggregationTable
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.federation import tiny_federation
from tests.engine.flower.grid import MemoryGrid, client
from tests.some import mostly_slow

NAMES = ("site-0", "site-1", "site-2")
SECURE = "\n[rounds]\nmax_update_norm = 50.0\n\n[secure_aggregation]\nenabled = true\n"
SOON = Patience(come=0.0, describe=30.0, deadline=0.5)


@pytest.fixture(scope="module", params=mostly_slow(["ffa", "loom"], "loom"))
def experiment(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return fedloom.load(tiny_federation(folder, rounds=2, method=request.param, task="classification", extra=SECURE))


def on_flower(experiment, tmp_path, **others):
    """others: name -> what becomes of its node."""
    nodes = {name: client(name, tmp_path / name) for name in NAMES}
    nodes |= {name.replace("_", "-"): change(nodes[name.replace("_", "-")]) for name, change in others.items()}
    grid = MemoryGrid(dict(enumerate(nodes.values(), 1)))
    return run_with(FlowerHost(grid, experiment, lambda _: None, SOON), tmp_path / "runs"), grid


def records(path, kind):
    return [record for record in RunDirectory.open(path).journal.records() if record.kind == kind]


def without_masks(experiment):
    return experiment.model_copy(update={"secure_aggregation": SecureAggregationTable()})


def test_the_secure_run_is_the_plain_run_up_to_rounding_and_the_same_on_both_engines(experiment, tmp_path):
    plain = run(without_masks(experiment), root=tmp_path / "plain")
    secure = run(experiment, root=tmp_path / "secure")
    assert norm(subtract(plain.adapter, secure.adapter)) < 1e-4 * norm(plain.adapter)
    assert norm(plain.adapter) > 1e-3
    for name, tensor in plain.state.head.items():
        assert tensor.allclose(secure.state.head[name], atol=1e-5)
    flower, _ = on_flower(experiment, tmp_path)
    assert flower.digest == secure.digest  # sums of fixed point do not depend on masks or order
    assert not records(flower.directory, "dropout")


def silent_at(step):
    """A node that takes part up to a step of the secure sum."""

    def change(answer):
        return lambda message: None if from_record(message.content).facts.get("step") == step else answer(message)

    return change


@pytest.mark.parametrize("step", mostly_slow([DELIVERY, AGREEMENT], DELIVERY))
def test_a_client_that_goes_away_after_its_shares_is_recovered(step, experiment, tmp_path):
    result, _ = on_flower(experiment, tmp_path, site_1=silent_at(step))
    present = [["site-0", "site-2"], list(NAMES)][step == AGREEMENT]
    assert [record["clients"] for record in records(result.directory, "secure_sum")] == [present] * 2
    reasons = [(record["client"], record["reason"]) for record in records(result.directory, "dropout")]
    assert {name for name, _ in reasons} == {"site-1"}
    assert f"secure sum, {step}: " in reasons[0][1]
    if step == AGREEMENT:
        assert result.digest == run(experiment, root=tmp_path / "all").digest


def test_what_goes_up_of_a_client_that_trained_has_no_numbers_of_it(experiment, tmp_path):
    """What the server is sent before the masked words is as large as names and metrics, not as factors."""
    _, grid = on_flower(experiment, tmp_path)
    secure = [from_record(sent.content) for sent in grid.sent.values()]
    kinds = {message.facts["kind"] for message in secure}
    assert {"assignment", "secure"} <= kinds
    assert all(len(message.body) < 20_000 for message in secure if message.facts["kind"] == "secure")


def test_a_site_that_wants_only_sums_sends_nothing_else(experiment, tmp_path):
    site = {
        "accept": {"models": [experiment.model.id], "methods": [experiment.method.name]},
        "privacy": {"only_sums": True},
        "data": experiment.client("site-1").data,
    }
    plain = without_masks(experiment)

    def strict(_):
        return client("site-1", tmp_path / "strict", site=site)

    patient = replace(SOON, deadline=30.0)
    nodes = {name: client(name, tmp_path / name) for name in NAMES} | {"site-1": strict(None)}
    grid = MemoryGrid(dict(enumerate(nodes.values(), 1)))
    result = run_with(FlowerHost(grid, plain, lambda _: None, patient), tmp_path / "runs")
    assert {record["client"] for record in records(result.directory, "dropout")} == {"site-1"}
    assert "only as part of a secure sum" in records(result.directory, "dropout")[0]["reason"]
    grid = MemoryGrid(dict(enumerate(nodes.values(), 1)))
    secure = run_with(FlowerHost(grid, experiment, lambda _: None, patient), tmp_path / "secure")
    assert [record["clients"] for record in records(secure.directory, "secure_sum")] == [list(NAMES)] * 2


def test_a_simulation_needs_one_process_for_all(experiment, tmp_path):
    with pytest.raises(RunError, match="needs all clients in one process"):
        simulate(experiment, root=tmp_path, options=Simulated(parallel=2))
