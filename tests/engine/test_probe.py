"""One machine is measured for all clients whose rows lie on it; what is not available is said with the reason."""

from __future__ import annotations

import socket
from contextlib import contextmanager

import pytest

from fedloom.engine import probe as probing
from fedloom.engine.planned import base_for_planning
from fedloom.engine.probe import Link, probe
from fedloom.errors import ConfigError, DataError, ModelError, PlanError
from fedloom.planning.cost import step_seconds
from fedloom.planning.probe_file import architecture_digest, from_json, require_base, to_json
from fedloom.planning.values import Choice, Work
from fedloom.spec.load import load
from fedloom.testing.federation import tiny_federation
from fedloom.training.architecture import architecture_of
from fedloom.training.probe import NEEDED
from fedloom.training.probe_process import Job, Process, begun


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probed")
    tiny_federation(folder, rows=40)
    return folder


@pytest.fixture(scope="module")
def experiment(folder):
    return load(folder / "pilot.toml")


@pytest.fixture(scope="module")
def found(experiment):
    return probe(experiment, ["site-0", "site-1"], seconds=1.0, memory_limit=2_000_000_000)


def test_both_clients_have_one_machine_and_rows_of_their_own(found, experiment):
    (one, other), architecture = found
    assert (one.client, other.client) == ("site-0", "site-1")
    assert one.machine == other.machine
    assert one.rows.train + one.rows.held_out == 40
    assert sum(bucket.rows for bucket in one.rows.lengths) == one.rows.train
    assert sum(bucket.rows for bucket in one.rows.learned) == one.rows.train
    assert max(bucket.up_to for bucket in one.rows.lengths) <= 128, "texts are cut at 96 tokens"
    require_base(one, one.base.digest, architecture, where="here")
    assert one.base.architecture == architecture_digest(architecture)
    assert from_json(to_json(one)) == one


def test_every_number_of_bits_was_measured_within_what_the_site_allows(found):
    (one, _), architecture = found
    assert {speed.bits for speed in one.machine.speeds} == {32, 8, 4} == {each.bits for each in one.loading}
    assert one.unavailable == ()
    choices = [Choice(((architecture.modules[0].name, 8),), bits, 4, 1) for bits in (32, 8, 4)]
    machine = one.measured_machine()
    assert all(step_seconds(architecture, machine, Work(1, 4, 64, 32), choice) > 0 for choice in choices)
    assert all(50e6 < each.peak_bytes < 3e9 and each.seconds > 0 for each in one.loading)
    assert one.memory_available == one.measured_machine().memory_bytes == 2_000_000_000
    assert one.calibrated.memory_error < 0.05
    assert one.calibrated.trials == 3 * NEEDED
    assert one.calibrated.stopped == "the time was used"


@pytest.mark.parametrize("task", ["classification", "image-classification"])
def test_classifiers_are_probed_as_they_are_planned_for(task, tmp_path, monkeypatch):
    """Without names of classes in the configuration, as many are taken as the planner takes."""
    monkeypatch.setattr(probing, "MOST_BITS", ("none",))
    experiment = load(tiny_federation(tmp_path, rows=40, task=task))
    (one,), _ = probe(experiment, ["site-1"], seconds=1.0)
    require_base(one, one.base.digest, architecture_of(base_for_planning(experiment)), where="here")
    assert one.rows.train + one.rows.held_out == 40
    assert sum(bucket.rows for bucket in one.rows.lengths) == one.rows.train
    assert one.rows.learned == ()
    assert one.measured_machine().label_seconds == 0.0, "one label of a row is not told from the row"


def test_neither_texts_nor_where_they_lie_are_in_the_file(found, folder):
    text = to_json(found[0][0])
    assert str(folder) not in text
    assert "site-0.jsonl" not in text
    assert "batch" not in text.replace("batch_seconds", ""), "a word of every row"


def test_bits_that_the_base_cannot_have_are_listed_with_the_reason(experiment, monkeypatch):
    real = begun

    @contextmanager
    def refusing(job: Job):
        if job.bits == 8:
            raise ModelError("only layers of the class Linear can be quantised", found="Conv1D")
        if job.bits == 4:
            raise PlanError("the process ended during the trials", found="exit code -9")
        with real(job) as process:
            yield process

    monkeypatch.setattr(probing, "begun", refusing)
    (one,), _ = probe(experiment, ["site-0"], seconds=1.0)
    assert [(each.bits, each.reason) for each in one.unavailable] == [
        (8, "only layers of the class Linear can be quantised (Conv1D)"),
        (4, "the process ended during the trials (exit code -9)"),
    ]
    assert [speed.bits for speed in one.machine.speeds] == [32]


def test_a_process_that_is_killed_is_an_error_that_says_so(experiment):
    job = Job(experiment.model, experiment.lora, None, None, 96, "none")
    with begun(job) as process:
        assert isinstance(process, Process)
        process.loaded()
        process.process.kill()
        with pytest.raises(PlanError, match="no memory left"):
            process.measured(1.0)


def test_an_unknown_client_a_missing_base_and_missing_rows(experiment):
    with pytest.raises(ConfigError, match="site-9"):
        probe(experiment, ["site-9"])
    gone = experiment.model_copy(update={"model": experiment.model.model_copy(update={"id": "/no/such/model"})})
    with pytest.raises(ModelError, match="no/such/model"):
        probe(gone, ["site-0"])
    client = experiment.client("site-0").model_copy(update={"data": "/no/rows.jsonl"})
    with pytest.raises(DataError, match="site-0"):
        probe(experiment.model_copy(update={"clients": (client,)}), ["site-0"])


def test_bandwidth_is_declared_and_a_connection_is_tried():
    assert Link().facts() is None
    assert Link(upload=5.0).facts().source == "declared"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = Link(server=("127.0.0.1", port)).facts()
        assert found.connect_seconds > 0
        assert found.upload is None
    with pytest.raises(PlanError, match=f"127.0.0.1:{port}: the server cannot be reached"):
        Link(server=("127.0.0.1", port)).facts()
