"""The local engine on a tiny model: the base is never written, a client that fails is a dropout, two runs agree."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch

import fedloom
from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.registry import method
from fedloom.aggregation.world import Start
from fedloom.engine.local import LocalEngine
from fedloom.engine.sites import load_sites
from fedloom.rounds.assign import training_assignments
from fedloom.rounds.messages import Dropout, StepDone
from fedloom.rounds.state import RunState
from fedloom.rounds.world import world_of
from fedloom.store.audit.run import audit_files
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.federation import tiny_federation
from tests.some import mostly_slow

TASKS = ["generation", "classification", "image-classification"]


@pytest.fixture(scope="module", params=mostly_slow(TASKS, "generation", "image-classification"))
def pilot(request, tmp_path_factory):
    return fedloom.load(tiny_federation(tmp_path_factory.mktemp(request.param), task=request.param, rounds=2))


def weights(base):
    return {name: value.clone() for name, value in base.model.state_dict().items() if name not in base.head}


def test_a_run_writes_nothing_into_the_base_and_repeats_itself(pilot, tmp_path):
    sites = load_sites(pilot)
    before = weights(sites.base)
    first = fedloom.run(pilot, root=tmp_path / "first", sites=sites)
    after = weights(sites.base)
    assert all(before[name].equal(after[name]) for name in before)
    second = fedloom.run(pilot, root=tmp_path / "second")
    assert first.digest == second.digest
    again = fedloom.run(pilot, root=tmp_path / "again", sites=sites)
    assert again.digest == first.digest
    assert all(first.state.head[name].equal(value) for name, value in again.state.head.items())
    if pilot.model.task == "generation":
        assert first.summary.federated.pooled.loss < first.summary.base.pooled.loss


def test_a_client_whose_training_diverges_is_a_dropout_with_a_reason(pilot):
    sites = load_sites(pilot)
    wild = pilot.model_copy(update={"training": pilot.training.model_copy(update={"learning_rate": 1e38})})
    chosen, world = method("loom"), world_of(pilot, sites.base.modules)
    state = RunState(chosen.init(world), sites.federation().head)
    answers = list(LocalEngine(sites).exchange(training_assignments(wild, chosen, world, state, ["site-0"])))
    assert isinstance(answers[0], Dropout)
    assert "site-0" in answers[0].reason
    healthy = list(LocalEngine(sites).exchange(training_assignments(pilot, chosen, world, state, ["site-0"])))
    assert not isinstance(healthy[0], Dropout)


def test_training_alone_uses_the_same_rows_seeds_and_steps(pilot, tmp_path):
    evaluation = pilot.evaluation.model_copy(update={"baselines": True})
    result = fedloom.run(pilot.model_copy(update={"evaluation": evaluation}), root=tmp_path)
    journal = RunDirectory.open(result.directory).journal.records()
    assert set(result.summary.alone.clients) == {"site-0", "site-1", "site-2"}
    for client in result.summary.alone.clients:
        records = RunDirectory.open(result.directory / "alone" / client).journal.records()
        assert [record["client"] for record in records if record["kind"] == "contribution"] == [client] * 2
        (shown,) = [record for record in journal if record.get("stage") == "alone" and record["client"] == client]
        assert shown["alone_head"] == records[-1].digest
    assert audit_files(result.directory).damage == ()


@pytest.mark.parametrize("method", ["loom", "flexlora"])
def test_a_run_that_learns_nothing_still_ends(method, tmp_path):
    path = tiny_federation(tmp_path / "site", rounds=1, method=method)
    path.write_text(path.read_text().replace("learning_rate = 0.01", "learning_rate = 1e-60"))
    result = fedloom.run(fedloom.load(path), root=tmp_path)
    assert not result.adapter
    assert (result.directory / "adapter" / "adapter_model.safetensors").is_file()
    assert (result.directory / "report.html").is_file()


def test_the_observer_sees_every_step(pilot):
    sites, seen = load_sites(pilot), []
    chosen, world = method("loom"), world_of(pilot, sites.base.modules)
    state = RunState(chosen.init(world), sites.federation().head)
    list(LocalEngine(sites, seen.append).exchange(training_assignments(pilot, chosen, world, state, ["site-0"])))
    steps = [event for event in seen if isinstance(event, StepDone)]
    assert [(done.client, done.round, done.step, done.steps) for done in steps] == [
        ("site-0", 1, step, 3) for step in (1, 2, 3)
    ]


def test_nobody_keeps_the_trunk_while_a_client_trains(pilot):
    sites, kept, trunks = load_sites(pilot), [], []
    chosen, world = method("loom"), world_of(pilot, sites.base.modules)
    state = RunState(chosen.init(world), sites.federation().head)

    def with_trunk(assignment):
        modules = {
            name: Factors(torch.ones(1, size), torch.ones(out, 1)) for name, (out, size) in world.modules.items()
        }
        trunks.extend(weakref.ref(factors.a) for factors in modules.values())
        return replace(assignment, start=Start(assignment.start.trainable, Adapter(modules)))

    def count(event):
        if isinstance(event, StepDone):
            gc.collect()
            kept.append(sum(trunk() is not None for trunk in trunks))

    assigned = training_assignments(pilot, chosen, world, state, ["site-0", "site-1"])
    answers = list(LocalEngine(sites, count).exchange(map(with_trunk, assigned)))
    assert len(trunks) == 2 * len(world.modules)
    assert set(kept) == {0}
    assert [len(answer.assignment.start.trunk) for answer in answers] == [0, 0]
