"""Where clients' models are at their sites, each site has its own whole, bit for bit that of a run on one machine."""

from __future__ import annotations

import pytest
import torch

from fedloom.engine.control import ask
from fedloom.engine.finished import load_finished
from fedloom.engine.flower.host import FlowerHost, resume_with, run_with
from fedloom.engine.keeping import MODEL_NOT_KEPT
from fedloom.engine.run import run
from fedloom.errors import RunError
from fedloom.spec.experiment import MethodTable
from fedloom.spec.load import load
from fedloom.store import unfinished
from fedloom.store.client_store import ClientStore
from fedloom.store.own_model import FILE, load_own_model
from fedloom.store.requests import Request
from fedloom.testing.federation import tiny_federation
from tests.engine.flower.test_exchange import NAMES, SOON, grid_of, records
from tests.some import mostly_slow


def tensors_of(start):
    adapters = {"own": start.trainable, "rest": start.rest, "trunk": start.trunk}
    found = {
        f"{name} {module} {side}": getattr(factors, side)
        for name, adapter in adapters.items()
        for module, factors in adapter.items()
        for side in "ab"
    }
    return found | {f"G {module}": G for module, G in start.mixers.items()} | dict(start.matrices)


def files_below(path):
    return sorted(str(found.relative_to(path)) for found in path.rglob(FILE))


@pytest.mark.parametrize(
    ("method", "task"),
    mostly_slow(
        [("fedalt", "generation"), ("fedsa", "generation"), ("fedalt", "classification")], ("fedalt", "generation")
    ),
)
def test_a_site_has_bit_for_bit_what_a_run_on_one_machine_has(method, task, tmp_path):
    pilot = load(tiny_federation(tmp_path / "sites", rounds=2, method=method, task=task))
    here = run(pilot, root=tmp_path / "local")
    run_with(FlowerHost(grid_of(tmp_path), pilot, lambda _: None, SOON), tmp_path / "runs")
    assert files_below(tmp_path / "local") == [], "there the run directory has all of it"
    finished = load_finished(here.directory)
    for name in NAMES:
        found, expected = load_own_model(tmp_path / "store" / name), finished.own(name)
        assert (found.client, found.round) == (name, 2)
        one, other = tensors_of(found.start), tensors_of(expected)
        assert one.keys() == other.keys()
        assert len(one) > 4
        assert all(torch.equal(one[key], other[key]) for key in one)
        assert found.start.mixing == expected.mixing
        assert found.start.digest() == expected.digest() == here.models[name].digest()
        assert found.head.keys() == finished.state.head.keys()
        assert all(torch.equal(found.head[key], finished.state.head[key]) for key in found.head)
        assert found.facts["base_digest"] == finished.base.digest
        assert [client.name for client in found.experiment.clients] == [name]
    assert len({load_own_model(tmp_path / "store" / name).start.digest() for name in NAMES}) == 3


def test_a_site_chooses_what_it_borrows_as_on_one_machine_and_the_server_never_knows(tmp_path):
    pilot = load(tiny_federation(tmp_path / "sites", rounds=2, ranks=(2, 1), method="fedalt"))
    pilot = pilot.model_copy(update={"method": MethodTable.model_validate({"name": "fedalt", "borrow": "chosen"})})
    here = run(pilot, root=tmp_path / "local")
    away = run_with(FlowerHost(grid_of(tmp_path), pilot, lambda _: None, SOON), tmp_path / "runs")
    for name, expected in here.models.items():
        found = load_own_model(tmp_path / "store" / name).start
        assert found.borrows == expected.borrows is not None
        assert found.digest() == expected.digest()
    assert "borrows" not in (away.directory / "journal.jsonl").read_text()
    assert not list(away.directory.glob("clients/*"))


def test_what_a_site_keeps_of_one_run_is_not_taken_for_that_of_another(pilot, tmp_path):
    """Two runs with one kit: each site sets the files of the first aside, which does not go on from the second's."""

    def host(experiment):
        return FlowerHost(grid_of(tmp_path), experiment, lambda _: None, SOON)

    personal = pilot.model_copy(update={"method": MethodTable(name="fedsa")})
    first = run_with(host(personal), tmp_path / "runs")
    store = ClientStore(tmp_path / "store" / NAMES[0])
    kept = {round: store.load(round) for round in (1, 2)}
    run_with(host(personal.model_copy(update={"name": "another", "seed": 3})), tmp_path / "runs")
    aside = ClientStore(store.directory / "earlier-0001")
    assert (store.run(), aside.run(), aside.rounds()) == ("another", personal.name, [1, 2])
    assert all(torch.equal(aside.load(2)[name], tensor) for name, tensor in kept[2].items())
    ask(first.directory, Request("back", "rollback", to=1))
    with pytest.raises(RunError, match="too few contributions"):
        resume_with(host(personal), first.directory)
    reasons = {record["reason"] for record in records(first.directory, "dropout")}
    assert all("has begun another run here since" in reason and "earlier-NNNN" in reason for reason in reasons)
    for site in (tmp_path / "store").glob("site-*"):
        for path in (site / "earlier-0001").iterdir():
            path.replace(site / path.name)
    again = resume_with(host(personal), first.directory)
    assert again.summary.federated_round == 2
    assert torch.equal(store.load(1)[next(iter(kept[1]))], kept[1][next(iter(kept[1]))])


def test_no_other_method_leaves_one(pilot, tmp_path):
    run_with(FlowerHost(grid_of(tmp_path), pilot, lambda _: None, SOON), tmp_path / "runs")
    assert files_below(tmp_path / "store") == []


def test_it_is_written_when_it_is_measured_and_at_no_other_time(pilot, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        "fedloom.engine.keeping.save_own_model", lambda _, model: written.append((model.client, model.round))
    )
    personal = pilot.model_copy(update={"method": MethodTable(name="fedsa")})
    result = run_with(FlowerHost(grid_of(tmp_path), personal, lambda _: None, SOON), tmp_path / "runs")
    measured = [(record["client"], record["round"]) for record in records(result.directory, "evaluation")]
    assert sorted(written) == sorted(each for each in measured if each[1] > 0)
    assert {client for client, _ in written} == set(NAMES)
    assert len(measured) > len(written), "before round 1 nobody has a model of its own"


def test_a_full_disk_loses_no_answer_and_is_told(pilot, tmp_path, monkeypatch):
    write = unfinished.write_file

    def full(path, data, **how):
        if FILE in path.name:
            raise OSError(28, "No space left on device")
        write(path, data, **how)

    monkeypatch.setattr(unfinished, "write_file", full)
    personal = pilot.model_copy(update={"method": MethodTable(name="fedalt")})
    result = run_with(FlowerHost(grid_of(tmp_path), personal, lambda _: None, SOON), tmp_path / "runs")
    assert not records(result.directory, "dropout")
    last = [record for record in records(result.directory, "evaluation") if record["round"] == 2]
    assert {record["client"] for record in last} == set(NAMES)
    assert all(record[MODEL_NOT_KEPT] == 1.0 and record["loss"] > 0 for record in last)
    assert files_below(tmp_path / "store") == []


def test_the_run_says_what_to_do_at_the_site(pilot, tmp_path):
    personal = pilot.model_copy(update={"method": MethodTable(name="fedsa")})
    result = run_with(FlowerHost(grid_of(tmp_path), personal, lambda _: None, SOON), tmp_path / "runs")
    reasons = {record["reason"] for record in records(result.directory, "left_out")}
    assert len(reasons) == 1
    assert reasons.pop().endswith("Run there: fedloom export KIT")
