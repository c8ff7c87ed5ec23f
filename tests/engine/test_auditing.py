"""An audit of a run: whose rows are compared, by which model, and when it is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fedloom
from fedloom.engine import auditing
from fedloom.engine.auditing import audit_run
from fedloom.errors import DataError, RunError
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.federation import tiny_federation

CANARIES = "[privacy]\ncanaries = 20\n"
PRIVATE = CANARIES + 'unit = "example"\nepsilon = 8\ndelta = 1e-3\n'
WHOLE = CANARIES + 'unit = "client"\nnoise_multiplier = 1.0\ndelta = 1e-2\n[rounds]\nweighting = "uniform"\n'


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """run_of(task=..., extra=..., ...) -> a finished run; equal ones are run once."""
    runs = {}

    def make(**options):
        key = repr(options)
        if key not in runs:
            folder = tmp_path_factory.mktemp("audited")
            config = tiny_federation(folder, **{"rows": 40, "rounds": 2, "ranks": (2, 2), **options})
            runs[key] = fedloom.run(fedloom.load(config), root=folder / "runs")
        return runs[key]

    return make


@pytest.mark.parametrize("task", ["generation", "classification"])
def test_rows_and_canaries_of_all_clients_are_compared(run_of, task):
    result = run_of(task=task, extra=CANARIES)
    found = audit_run(result.directory)
    rows, gain, ratio = found.result.attacks
    assert (found.round, found.clients, found.absent) == (2, ("site-0", "site-1"), ())
    assert (rows.members, rows.others) == (72, 8)
    assert found.result.canaries == gain.members + gain.others == ratio.members + ratio.others == 40
    assert 0 < gain.members == found.result.included < 40
    assert (found.unit, found.promised, found.spent, found.result.delta) == ("none", None, None, 1e-5)


def test_what_is_printed_is_written_beside_the_run(run_of):
    result = run_of(extra=CANARIES)
    found = audit_run(result.directory)
    written = json.loads((result.directory / "audit.json").read_text())
    assert written["result"]["epsilon_at_least"] == found.result.epsilon_at_least
    assert [one["name"] for one in written["result"]["attacks"]] == [one.name for one in found.result.attacks]
    assert written["result"]["attacks"][0]["found"]["hits"] == found.result.attacks[0].found.hits
    assert written["round"] == 2


def test_it_repeats_itself_and_leaves_the_run_as_it_was(run_of):
    result = run_of(extra=CANARIES)
    first = audit_run(result.directory)
    assert audit_run(result.directory) == first
    assert fedloom.resume(result.directory).digest == result.digest


def test_the_losses_are_those_of_the_model_and_of_the_base(run_of, monkeypatch):
    """Means over the held-out rows are what the run measured; canaries' first losses are the base's, at any round."""
    result = run_of(task="classification", extra=CANARIES)
    seen = []
    real = auditing.audit
    monkeypatch.setattr(auditing, "audit", lambda losses, delta: seen.append(losses) or real(losses, delta))
    audit_run(result.directory)
    audit_run(result.directory, round=1)
    last, first = seen
    assert last.others.mean() == pytest.approx(result.summary.federated.pooled.loss, rel=1e-5)
    assert np.array_equal(last.before, first.before)
    assert not np.isclose(last.after, first.after).all()
    assert last.members.mean() != pytest.approx(last.others.mean())


def test_fewer_rows_and_one_client_can_be_asked_for(run_of):
    result = run_of(extra=CANARIES)
    found = audit_run(result.directory, rows=3, client="site-1")
    assert (found.clients, found.absent) == (("site-1",), ())
    assert (found.result.attacks[0].members, found.result.attacks[0].others) == (3, 3)
    assert found.result.canaries == 20


def test_a_client_that_never_took_part_has_no_members(run_of):
    result = run_of(rounds=1, extra="[rounds]\nparticipation = 0.5\n")
    found = audit_run(result.directory)
    assert len(found.clients) == len(found.absent) == 1
    assert found.result.attacks[0].members == 36
    with pytest.raises(RunError, match=rf"'{found.absent[0]}' has contributed to no round up to 1.*{found.clients[0]}"):
        audit_run(result.directory, client=found.absent[0])
    with pytest.raises(RunError, match=r"'nobody' has contributed to no round"):
        audit_run(result.directory, client="nobody")


def test_what_was_promised_and_spent_stands_beside_it(run_of):
    result = run_of(method="ffa", extra=PRIVATE)
    late, early = audit_run(result.directory), audit_run(result.directory, round=1)
    assert (late.unit, late.promised, late.result.delta) == ("example", 8, 1e-3)
    assert early.spent < late.spent == max(one.epsilon for one in result.summary.releases) <= 8


def test_noise_of_the_server_is_beside_it_too(run_of):
    result = run_of(method="fedit", extra=WHOLE)
    found = audit_run(result.directory)
    assert (found.unit, found.promised) == ("client", None)
    assert found.spent == max(one.epsilon for one in result.summary.sums)


def test_of_a_personal_method_each_clients_own_model_is_audited(run_of):
    result = run_of(method="fedsa", extra=CANARIES)
    found = audit_run(result.directory)
    assert "its own model" in found.note
    alone = audit_run(result.directory, client="site-0")
    assert alone.result.attacks[0].area != found.result.attacks[0].area
    assert audit_run(run_of(extra=CANARIES).directory).note is None


def test_images_have_rows_to_compare(run_of):
    found = audit_run(run_of(task="image-classification").directory)
    assert [one.name for one in found.result.attacks] == ["loss of rows"]


def test_a_round_that_is_not_there_is_refused(run_of):
    with pytest.raises(RunError, match=r"no such round.*round 9, while rounds 1 to 2"):
        audit_run(run_of(extra=CANARIES).directory, round=9)


def test_rows_that_were_changed_are_refused(tmp_path):
    config = tiny_federation(tmp_path, rounds=1)
    result = fedloom.run(fedloom.load(config), root=tmp_path / "runs")
    rows = tmp_path / "site-1.jsonl"
    rows.write_text(rows.read_text().replace("batch 1", "batch 99"))
    with pytest.raises(DataError, match=r"the rows of site-1 are not those"):
        audit_run(result.directory)
    assert not (result.directory / "audit.json").exists()


def test_rows_that_are_at_their_sites_are_said_to_be_there(run_of, monkeypatch):
    """As at the server of a run across machines, whose configuration names no data."""
    result = run_of(extra=CANARIES)
    experiment = RunDirectory.open(result.directory).experiment()
    clients = tuple(one.model_copy(update={"data": None}) for one in experiment.clients)
    monkeypatch.setattr(RunDirectory, "experiment", lambda _: experiment.model_copy(update={"clients": clients}))
    with pytest.raises(RunError, match=r"the rows of site-0, site-1 are at their sites.*fedloom run"):
        audit_run(result.directory)


def test_a_model_that_diverged_is_refused(run_of, monkeypatch):
    real = auditing.example_losses
    monkeypatch.setattr(auditing, "example_losses", lambda *arguments: real(*arguments) * np.nan)
    with pytest.raises(RunError, match=r"losses are not finite.*--round"):
        audit_run(run_of(extra=CANARIES).directory)


def test_canaries_change_no_other_row(run_of):
    """Without them a run is what it was, and with them its own rows are compared alone."""
    plain, planted = (audit_run(run_of(extra=extra).directory) for extra in ("", CANARIES))
    assert plain.result.attacks[0].members == planted.result.attacks[0].members
    assert plain.result.epsilon_at_least is None
    assert planted.result.epsilon_at_least is not None
