"""Run directories: what they refuse, and what they find again."""

import errno
import os
import shutil
import subprocess
import sys

import pytest
import torch

from fedloom.errors import CheckpointDamagedError, JournalDamagedError, RunError
from fedloom.spec.dump import dump
from fedloom.store.journal import Journal
from fedloom.store.run_directory import RunDirectory


def test_a_new_run_holds_its_configuration(run, experiment):
    again = RunDirectory.open(run.path)
    assert again.experiment() == experiment
    assert again.facts == {"base_digest": "abc"}
    assert (again.latest(), [record.kind for record in again.journal.records()]) == (0, ["run_created"])
    assert {path.parent for path in (run.adapter, run.report, run.plan)} == {run.path}
    assert [entry.name for entry in run.path.parent.iterdir()] == ["pilot"]


def test_a_run_is_never_overwritten(run, experiment):
    with pytest.raises(RunError, match=r"pilot: there is a run of this name already.*fedloom resume .*another name"):
        RunDirectory.create(run.path, dump(experiment), {})


def other_version(run):
    shutil.rmtree(run.path / "rounds")
    (run.path / "journal.jsonl").unlink()
    Journal(run.path / "journal.jsonl").append("run_created", format="fedloom.run", version=2)


OPENINGS = {
    "missing": (
        lambda run: run.path.rename(run.path.with_name("other")),
        "there is no such run .found the runs ..other",
    ),
    "no journal": (lambda run: (run.path / "journal.jsonl").unlink(), "not a run directory"),
    "another journal": (lambda run: (run.path / "journal.jsonl").write_text(""), "not a run directory"),
    "version": (other_version, "another version of the format .expected 1, found 2"),
}


@pytest.mark.parametrize(("change", "message"), OPENINGS.values(), ids=OPENINGS)
def test_what_is_no_run_is_refused(run, change, message):
    change(run)
    with pytest.raises(RunError, match=message):
        RunDirectory.open(run.path)


def test_rounds_are_found_again(run, commit, state):
    digests = {round: commit(round) for round in (1, 2)}
    again = RunDirectory.open(run.path)
    assert again.latest() == 2
    for round in digests:
        learned, head, facts = again.load_round(round)
        assert learned.shared.digest() == state(round).shared.digest()
        assert learned.trunk.digest() == state(round).trunk.digest()
        assert learned.momentum.digest() == state(round).momentum.digest()
        assert learned.ranks == state(round).ranks
        assert {name: adapter.digest() for name, adapter in learned.clients.items()} == {
            name: adapter.digest() for name, adapter in state(round).clients.items()
        }
        assert {name: tensor.tolist() for name, tensor in learned.extras.items()} == {
            "momentum": [1.0, round],
            "steps": round,
        }
        assert (learned.rounds, head["weight"].tolist()) == (round, [round, round])
        assert (facts["round"], facts["metrics"], facts["facts"]) == (
            round,
            {"loss": 1 / round},
            {"base_digest": "abc"},
        )


def test_equal_states_have_equal_digests(run, commit, state):
    digest = commit(1)
    assert run.save_round(1, state(1), {"weight": torch.ones(2)}, {"loss": 1.0}) == digest
    with pytest.raises(RunError, match="there already, with other files"):
        run.save_round(1, state(2), {}, {})


def test_another_configuration_is_refused_key_by_key(run, experiment):
    clients = (experiment.clients[0].model_copy(update={"rank": 4}), experiment.clients[1])
    training = experiment.training.model_copy(update={"local_steps": 20})
    with pytest.raises(RunError, match="another configuration") as error:
        run.check_same(experiment.model_copy(update={"clients": clients, "training": training}))
    assert error.value.found == "training.local_steps was 10 and is 20; clients.a.rank was 8 and is 4"
    run.check_same(experiment)


def test_a_changed_configuration_file_is_refused(run):
    path = run.path / "experiment.toml"
    path.write_text(path.read_text().replace("rounds = 3", "rounds = 4"))
    with pytest.raises(RunError, match="changed after the run began"):
        run.experiment()


def test_one_process_has_the_run(run):
    with pytest.raises(RunError, match=rf"in use .found process {os.getpid()} \(this one\)"):
        RunDirectory.open(run.path, to_write=True)
    code = (
        f"from pathlib import Path; from fedloom.store.durable import lock; lock(Path({str(run.path / 'run.lock')!r}))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"found process {os.getpid()}). Wait until it has ended" in other.stderr
    run.close()
    with RunDirectory.open(run.path, to_write=True):
        pass


def test_a_forgotten_directory_gives_its_lock_back(run):
    run.close()
    RunDirectory.open(run.path, to_write=True)
    RunDirectory.open(run.path, to_write=True).close()


@pytest.fixture
def reopened(run):
    """reopened(): the run as the next process finds it, after its change is made."""

    def reopen():
        run.close()
        return RunDirectory.open(run.path, to_write=True)

    return reopen


def test_a_round_without_its_journal_line_is_adopted(run, commit, state, reopened):
    commit(1)
    digest = run.save_round(2, state(2), {}, {"loss": 0.5})
    assert RunDirectory.open(run.path).latest() == 2
    with reopened() as again:
        record = again.journal.records()[-1]
        assert record.fields == {"round": 2, "digest": digest, "recovered": True, "metrics": {"loss": 0.5}}
        assert (again.latest(), again.load_round(2)[0].rounds) == (2, 2)
    with reopened() as again:
        assert len(again.journal.records()) == record.number


def test_a_journal_that_lacks_rounds_is_damaged(run, commit, state):
    commit(1)
    for round in (2, 3):
        run.save_round(round, state(round), {}, {})
    with pytest.raises(JournalDamagedError, match=r"expected rounds up to 1, found folders of rounds \[2, 3\]"):
        RunDirectory.open(run.path).latest()


def test_a_damaged_round_is_not_passed_over(run, commit):
    for round in (1, 2):
        commit(round)
    (run.path / "rounds" / "0002" / "state.json").write_bytes(b"{}")
    with pytest.raises(CheckpointDamagedError, match=r"round 2, .*state.json.*Rounds up to 1 are intact"):
        RunDirectory.open(run.path).latest()


def test_a_round_that_was_moved_away_is_rolled_back_and_done_again(run, commit, reopened):
    digests = [commit(round) for round in (1, 2, 3)]
    for round in (2, 3):
        (run.path / "rounds" / f"{round:04d}").rename(run.path / f"damaged-{round}")
    assert RunDirectory.open(run.path).latest() == 1
    with reopened() as again:
        assert again.journal.records()[-1].fields == {"round": 1, "lost": [2, 3]}
    run.acquire()
    assert [commit(2), commit(3)] == digests[1:]
    assert run.latest() == 3


@pytest.mark.parametrize("owner", ["dead", "alive"])
def test_what_a_killed_creation_left_is_removed(experiment, tmp_path, owner):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    process = ended.pid if owner == "dead" else os.getppid()
    for name in ("pilot", "other"):
        (tmp_path / f".{name}.tmp-{process}" / "rounds").mkdir(parents=True)
    RunDirectory.create(tmp_path / "pilot", dump(experiment), {}).close()
    left = {entry.name for entry in tmp_path.iterdir()} - {"pilot"}
    assert left == {f".{name}.tmp-{process}" for name in ("pilot", "other") if owner == "alive" or name == "other"}


def test_a_disk_that_is_full_at_the_creation_leaves_nothing(experiment, tmp_path, full_disk):
    undo = full_disk(1)
    with pytest.raises(RunError, match=r"pilot: the run directory cannot be created .found the disk is full"):
        RunDirectory.create(tmp_path / "pilot", dump(experiment), {})
    undo()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["0001/.DS_Store", ".DS_Store", "notes", "2/", "\u0660\u0660\u0660\u0662/"])
def test_what_a_file_manager_left_among_the_rounds_is_passed_over(run, commit, name):
    commit(1)
    left = run.path / "rounds" / name
    left.mkdir() if name.endswith("/") else left.write_text("x")
    assert RunDirectory.open(run.path).latest() == 1


def test_an_empty_folder_of_a_round_is_to_be_removed(run, commit):
    commit(1)
    (run.path / "rounds" / "0002").mkdir()
    with pytest.raises(CheckpointDamagedError, match=r"0002: the folder of the round is empty. Remove .*0002, then"):
        RunDirectory.open(run.path).latest()
    (run.path / "rounds" / "0002").rmdir()
    assert RunDirectory.open(run.path).latest() == 1


def test_a_lock_that_cannot_be_written_is_an_error(run, monkeypatch):
    run.close()
    real = os.open

    def read_only(path, flags, *rest):
        if str(path).endswith("run.lock"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(RunError, match=r"run.lock: cannot be written .found Read-only file system.*The run is as it"):
        RunDirectory.open(run.path, to_write=True)


def test_a_journal_that_goes_during_the_run_is_not_begun_again(run, commit):
    commit(1)
    path = run.path / "journal.jsonl"
    path.unlink()
    for use in (run.latest, lambda: run.facts, lambda: run.journal.append("x")):
        with pytest.raises(JournalDamagedError, match=r"records of the journal are gone .*found no file"):
            use()
    assert not path.exists()
