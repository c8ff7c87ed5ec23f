"""A finished run goes on with other rows: from its very state, with its ledgers, and measured on the rows of before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import fedloom
from fedloom.engine.continuing import continue_run
from fedloom.engine.control import ask
from fedloom.engine.finished import evaluate_again
from fedloom.engine.lineage import lineage_of
from fedloom.errors import ConfigError, DataError, FedLoomError, RunError
from fedloom.report.forgetting import forgetting
from fedloom.report.spending import last_of, releases, sums_of
from fedloom.spec.load import parse
from fedloom.store.client_store import ClientStore
from fedloom.store.ledger import Ledger
from fedloom.store.requests import Request
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.federation import tiny_federation
from tests.some import mostly_slow

PRIVATE = '\n[privacy]\nunit = "example"\ndelta = 1e-5\nnoise_multiplier = 2.0\n'


def ran(folder, method="fedit", extra="", rounds=2, ranks=(2, 2), **options):
    config = tiny_federation(folder, method=method, ranks=ranks, rounds=rounds, extra=extra, **options)
    return fedloom.run(parse(config.read_text(), where=str(config), folder=folder), root=folder / "runs")


def rows(folder, *clients, count=8):
    """A folder with new rows for these clients."""
    folder.mkdir(exist_ok=True)
    for client in clients:
        lines = [
            json.dumps({"prompt": f"Who sent crate {number} to {client}?", "response": f"Harbour {number % 3}."})
            for number in range(count)
        ]
        (folder / f"{client}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def records(path, *kinds):
    return [record for record in RunDirectory.open(path).journal.records() if record["kind"] in kinds]


@pytest.fixture(scope="module")
def continued(tmp_path_factory):
    """(the run, the one that continued it with new rows of one of its two clients)"""
    folder = tmp_path_factory.mktemp("continued")
    first = ran(folder, "loom", ranks=(2, 1))
    return first, continue_run(first.directory, rows(folder / "new", "site-0"), rounds=1)


def test_it_begins_with_the_state_that_the_run_before_ended_with(continued):
    first, second = continued
    directory = RunDirectory.open(second.directory)
    assert second.directory.name == "tiny-2"
    assert list(directory.committed()) == [2, 3]
    begun, head, _ = directory.load_round(2)
    assert begun.delta().digest() == first.digest
    assert begun.delta().digest() != second.digest
    assert all(torch.equal(head[name], tensor) for name, tensor in first.state.head.items())
    (parent,) = lineage_of(second.directory)
    before = RunDirectory.open(first.directory)
    heads = [record.digest for record in before.journal.records() if record.kind == "run_finished"]
    assert (parent.run, parent.round, parent.model) == ("tiny", 2, first.digest)
    assert parent.digest == before.committed()[2]
    assert parent.journal == heads[-1]
    assert [record["run"] for record in records(first.directory, "continued_as")] == ["tiny-2"]


def test_only_clients_with_a_file_take_part(continued):
    _, second = continued
    assert [record["participants"] for record in records(second.directory, "round_started")] == [["site-0"]]
    new = [each for each in records(second.directory, "evaluation") if each["stage"] in ("round", "final")]
    assert {each["client"] for each in new} == {"site-0"}
    assert not records(second.directory, "dropout", "refused")


def test_the_old_hold_out_is_measured_before_and_after_as_evaluate_measures_it(continued):
    first, second = continued
    old, new = forgetting(records(second.directory, "evaluation", "round_committed"), 2)
    assert list(old.before.clients) == list(old.after.clients) == ["site-0", "site-1"]
    oracle = evaluate_again(first.directory, round=2, rows=None, generate=1).by_client
    for client, scores in old.before.clients.items():
        assert scores.loss == pytest.approx(oracle[client].metrics["loss"], rel=1e-6)
        assert scores.loss != old.after.clients[client].loss
    assert new.after.clients["site-0"].loss < new.before.clients["site-0"].loss


def test_a_resume_and_a_rollback_to_its_beginning_give_the_same_run_again(continued, tmp_path):
    _, second = continued
    shutil.copytree(second.directory.parent, tmp_path / "runs")
    copy = tmp_path / "runs" / "tiny-2"
    assert fedloom.resume(copy).digest == second.digest
    with pytest.raises(RunError, match="no such round to go back to"):
        ask(copy, Request("back", "rollback", to=0))
    ask(copy, Request("back", "rollback", to=2))
    measured = len(records(copy, "evaluation"))
    again = fedloom.resume(copy)
    assert again.digest != second.digest, "another branch draws anew"
    old, _ = forgetting(RunDirectory.open(copy).journal.records(), 2)
    assert len(records(copy, "evaluation")) > measured
    assert old.after.clients


def test_a_third_run_continues_the_second(continued, tmp_path):
    _, second = continued
    shutil.copytree(second.directory.parent, tmp_path / "runs")
    third = continue_run(tmp_path / "runs" / "tiny-2", rows(tmp_path / "newer", "site-1"), rounds=1, name="third")
    assert third.state.round == 4
    assert [parent.run for parent in lineage_of(third.directory)] == ["tiny-2", "tiny"]
    assert [record["participants"] for record in records(third.directory, "round_started")] == [["site-1"]]


def test_old_rows_that_are_not_here_are_left_out_with_the_reason(tmp_path):
    first = ran(tmp_path)
    (tmp_path / "site-1.jsonl").unlink()
    second = continue_run(first.directory, rows(tmp_path / "new", "site-0", "site-1"), rounds=1)
    (left_out,) = records(second.directory, "left_out")
    assert left_out["what"] == "old hold-out of site-1"
    assert "site-1.jsonl" in left_out["reason"]
    old, _ = forgetting(RunDirectory.open(second.directory).journal.records(), 2)
    assert list(old.after.clients) == ["site-0"]


@pytest.mark.parametrize("method", mostly_slow(["fedsa", "fedalt"], "fedalt"))
def test_clients_go_on_from_what_they_kept(method, tmp_path):
    first = ran(tmp_path, method)
    second = continue_run(first.directory, rows(tmp_path / "new", "site-0", "site-1"), rounds=1)
    kept = ClientStore(first.directory / "clients" / "site-0").load(2)
    store = ClientStore(second.directory / "clients" / "site-0")
    assert store.rounds() == [2, 3]
    assert all(torch.equal(tensor, store.load(2)[name]) for name, tensor in kept.items())
    old, _ = forgetting(RunDirectory.open(second.directory).journal.records(), 2)
    oracle = evaluate_again(first.directory, round=2, rows=None, generate=1).by_client
    assert old.before.clients["site-1"].loss == pytest.approx(oracle["site-1"].metrics["loss"], rel=1e-6)


@pytest.mark.slow
def test_what_was_spent_of_privacy_goes_on_and_cannot_be_forked(tmp_path):
    first = ran(tmp_path, extra=PRIVATE)
    before = Ledger(first.directory / "clients" / "site-0").path.read_bytes()
    spent = last_of(releases(RunDirectory.open(first.directory).journal.records()))["site-0"].epsilon
    new = rows(tmp_path / "new", "site-0", count=12)
    second = continue_run(first.directory, new, rounds=1)
    ledger = Ledger(second.directory / "clients" / "site-0")
    assert ledger.path.read_bytes().startswith(before)
    assert [entry.round for entry in ledger.entries()] == [1, 2, 3]
    assert last_of(releases(RunDirectory.open(second.directory).journal.records()))["site-0"].epsilon > spent
    assert Ledger(second.directory / "clients" / "site-1").path.read_bytes() == (
        Ledger(first.directory / "clients" / "site-1").path.read_bytes()
    )
    with pytest.raises(RunError, match="went on in another"):
        continue_run(first.directory, new, rounds=1)


@pytest.mark.slow
def test_a_budget_that_is_used_up_has_to_be_raised(tmp_path):
    first = ran(tmp_path, extra=PRIVATE.replace("noise_multiplier = 2.0", "epsilon = 8.0"))
    new = rows(tmp_path / "new", "site-0", "site-1", count=12)
    before = (first.directory / "journal.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="the privacy budget does not allow the 2 rounds to come") as refused:
        continue_run(first.directory, new, rounds=2)
    assert all(said in str(refused.value) for said in ("'site-0'", "'site-1'", "Rounds that are left", "--epsilon"))
    assert not (first.directory.parent / "tiny-2").exists()
    assert (first.directory / "journal.jsonl").read_bytes() == before, "the ledgers are still this run's"
    second = continue_run(first.directory, new, rounds=2, epsilon=14.0)
    spent = last_of(releases(RunDirectory.open(second.directory).journal.records()))
    assert all(8.0 < one.epsilon <= 14.0 for one in spent.values())


@pytest.mark.slow
def test_sums_under_the_servers_noise_go_on(tmp_path):
    promise = PRIVATE.replace('"example"', '"client"').replace("1e-5", "0.1") + '[rounds]\nweighting = "uniform"\n'
    first = ran(tmp_path, extra=promise)
    second = continue_run(first.directory, rows(tmp_path / "new", "site-0", "site-1"), rounds=1)
    sums = sums_of(RunDirectory.open(second.directory).journal.records())
    assert [one.round for one in sums] == [1, 2, 3]
    assert sums[:2] == sums_of(RunDirectory.open(first.directory).journal.records())
    assert sums[2].epsilon > sums[1].epsilon


@pytest.mark.slow
def test_the_budget_of_whole_clients_is_asked_before_a_run_begins(tmp_path):
    promise = PRIVATE.replace('"example"', '"client"').replace("1e-5", "0.1") + '[rounds]\nweighting = "uniform"\n'
    first = ran(tmp_path, extra=promise.replace("noise_multiplier = 2.0", "epsilon = 8.0"))
    new = rows(tmp_path / "new", "site-0", "site-1")
    with pytest.raises(ConfigError, match="the server") as refused:
        continue_run(first.directory, new, rounds=2)
    assert "spent in 2 rounds" in str(refused.value)
    assert not (first.directory.parent / "tiny-2").exists()


def test_an_excluded_client_stays_shut_out(tmp_path):
    first = ran(tmp_path)
    ask(first.directory, Request("out", "exclude", client="site-1", reason="its loss rises"))
    second = continue_run(first.directory, rows(tmp_path / "new", "site-0", "site-1"), rounds=1)
    (started,) = records(second.directory, "round_started")
    assert (started["participants"], started["excluded"]) == (["site-0"], ["site-1"])


def test_a_client_that_the_run_left_out_joins_with_its_rank(tmp_path):
    first = ran(tmp_path, "loom", ranks=(2, 1, 3), extra='\n[rounds]\nclients = ["site-0", "site-1"]\n')
    second = continue_run(first.directory, rows(tmp_path / "new", "site-1", "site-2"), rounds=1)
    assert [record["participants"] for record in records(second.directory, "round_started")] == [["site-1", "site-2"]]
    assert not records(second.directory, "dropout", "refused")


def test_a_state_without_room_for_a_larger_rank_says_so(tmp_path):
    first = ran(tmp_path, "fedex", ranks=(2, 1, 3), extra='\n[rounds]\nclients = ["site-0", "site-1"]\n')
    with pytest.raises(RunError, match="no room for the rank of client 'site-2'"):
        continue_run(first.directory, rows(tmp_path / "new", "site-2"))


BAD = {
    "unknown": ("stranger.jsonl", "rank", DataError),
    "ending": ("site-0.xlsx", "the ending", DataError),
    "nothing": (None, "no file", DataError),
}


@pytest.mark.parametrize("case", BAD)
def test_folders_that_are_none_change_nothing(case, continued, tmp_path):
    file, said, kind = BAD[case]
    new = tmp_path / "new"
    new.mkdir()
    if file:
        (new / file).write_text("x")
    before = (continued[0].directory / "journal.jsonl").read_bytes()
    with pytest.raises(kind, match=said):
        continue_run(continued[0].directory, new, name="bad")
    assert (continued[0].directory / "journal.jsonl").read_bytes() == before
    assert not (continued[0].directory.parent / "bad").exists()


def test_what_cannot_be_continued_says_so(continued, tmp_path):
    first, second = continued
    new = rows(tmp_path / "new", "site-0")
    with pytest.raises(RunError, match="no such round"):
        continue_run(first.directory, new, round=9)
    with pytest.raises(RunError, match=r"exists|already"):
        continue_run(first.directory, new, name="tiny")
    with pytest.raises(RunError, match="no budget of privacy"):
        continue_run(first.directory, new, epsilon=3.0)
    with pytest.raises(RunError, match="continues another"):
        fedloom.run(RunDirectory.open(second.directory).experiment(), root=tmp_path / "runs")
    with pytest.raises(DataError, match="no such folder"):
        continue_run(first.directory, Path("nowhere"))


def test_a_base_with_other_weights_is_refused(tmp_path):
    first = ran(tmp_path)
    weights = tmp_path / "model" / "model.safetensors"
    changed = {name: tensor + 1e-3 for name, tensor in load_file(weights).items()}
    save_file(changed, weights, metadata={"format": "pt"})
    with pytest.raises(FedLoomError, match="other weights"):
        continue_run(first.directory, rows(tmp_path / "new", "site-0"))
