"""What a client keeps is there completely or not at all, known by its digest, and never older or newer than asked."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fedloom.errors import CheckpointDamagedError, RunError
from fedloom.store import client_store, unfinished
from fedloom.store.client_store import ClientStore, copy_kept

SCRIPT = Path(__file__).with_name("killed_saves.py")


def value(number: float) -> dict[str, torch.Tensor]:
    return {"layers.0.v|b": torch.full((3, 2), number), "layers.0.q|b": torch.full((4, 1), -number)}


@pytest.fixture
def store(tmp_path) -> ClientStore:
    return ClientStore(tmp_path / "clients" / "site-a")


def test_every_round_is_kept_and_comes_back_bit_for_bit(store):
    for round in (1, 2, 12345):
        store.save(round, value(round + 0.1))
    assert store.rounds() == [1, 2, 12345]
    for round in (1, 2, 12345):
        again = store.load(round)
        assert again.keys() == value(0).keys()
        assert all(torch.equal(again[name], tensor) for name, tensor in value(round + 0.1).items())


def test_a_round_that_is_trained_again_replaces_its_file(store):
    store.save(3, value(1.0))
    store.save(3, value(2.0))
    assert store.rounds() == [3]
    assert torch.equal(store.load(3)["layers.0.v|b"], value(2.0)["layers.0.v|b"])


def test_what_is_not_there_is_named_with_what_is(store):
    with pytest.raises(RunError, match=r"site-a/0002.*round 2.*files of rounds \[\]"):
        store.load(2)
    store.save(1, value(1.0))
    with pytest.raises(RunError, match=r"files of rounds \[1\].*from a copy"):
        store.load(2)


@pytest.mark.parametrize("position", [-1, -20, 40, 3])
def test_a_damaged_file_is_named(store, position):
    store.save(1, value(1.0))
    path = store.directory / "0001.safetensors"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointDamagedError, match=r"0001\.safetensors.*damaged"):
        store.load(1)


def test_the_file_of_another_round_is_not_taken_for_this_one(store):
    store.save(1, value(1.0))
    (store.directory / "0001.safetensors").rename(store.directory / "0002.safetensors")
    with pytest.raises(CheckpointDamagedError, match="another round"):
        store.load(2)


def test_later_files_and_those_of_dead_processes_are_removed_and_nothing_else(store):
    for round in (1, 2, 3, 5):
        store.save(round, value(round))
    dead, alive = (f".0004.safetensors.tmp-{process}" for process in (2**22 + 1, os.getpid()))
    for name in (dead, alive, "notes.txt"):
        (store.directory / name).write_text("x")
    assert store.forget_after(2) == [3, 5]
    assert store.rounds() == [1, 2]
    assert sorted(entry.name for entry in store.directory.iterdir())[:1] == [alive]
    assert (store.directory / "notes.txt").exists()
    assert not (store.directory / dead).exists()
    assert store.forget_after(2) == []


def test_a_client_that_kept_nothing_yet_has_nothing_to_forget(store):
    assert store.rounds() == []
    assert store.forget_after(0) == []
    assert not store.directory.exists()


def test_a_full_disk_is_an_error_that_can_be_read_and_loses_nothing(store, monkeypatch):
    store.save(1, value(1.0))

    def full(path, data):
        path.write_bytes(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unfinished, "write_file", full)
    with pytest.raises(RunError, match=r"disk is full.*earlier rounds is intact.*resume"):
        store.save(2, value(2.0))
    assert [entry.name for entry in store.directory.iterdir()] == ["0001.safetensors"]
    assert torch.equal(store.load(1)["layers.0.v|b"], value(1.0)["layers.0.v|b"])


def test_a_place_below_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be written"):
        ClientStore(tmp_path / "file" / "a").save(1, value(1.0))


def test_killed_at_any_call_of_a_save_earlier_rounds_are_whole_and_the_round_is_old_new_or_gone(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path), "write", "fsync", "rename", "open", "unlink"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)
    assert len(kills) > 6
    assert all(kill["found"]["1"] == 1.0 for kill in kills)
    assert {kill["found"].get("2") for kill in kills} == {2.0, None, 9.0}
    assert {kill["after"] for kill in kills} == {9.0}
    assert all(kill["left"] == ["0001.safetensors", "0002.safetensors"] for kill in kills)


def test_what_is_set_aside_is_there_as_it_was_and_no_round_any_more(tmp_path):
    store = ClientStore(tmp_path / "a")
    assert store.set_aside_after(0) is None
    for round in (1, 2, 3):
        store.save(round, {"x": torch.full((2,), float(round))})
    folder = store.set_aside_after(1)
    assert store.rounds() == [1]
    assert float(ClientStore(folder).load(3)["x"][0]) == 3.0
    store.save(2, {"x": torch.zeros(2)})
    again = store.set_aside_after(1)
    assert again != folder
    assert ClientStore(folder).rounds() == [2, 3]
    assert ClientStore(again).rounds() == [2]


def test_what_is_of_another_run_is_set_aside_with_its_name(store):
    assert store.run() is None
    store.begin("first")
    store.save(1, value(1.0))
    store.begin("first")
    assert (store.run(), store.rounds()) == ("first", [1])
    store.begin("second")
    assert (store.run(), store.rounds()) == ("second", [])
    aside = ClientStore(store.directory / "earlier-0001")
    assert (aside.run(), aside.rounds()) == ("first", [1])
    assert torch.equal(aside.load(1)["layers.0.v|b"], value(1.0)["layers.0.v|b"])


def test_what_is_of_no_run_that_is_known_is_set_aside_too_and_gets_no_name(store):
    """As versions left it that wrote no names."""
    store.save(1, value(1.0))
    store.begin("new")
    aside = ClientStore(store.directory / "earlier-0001")
    assert (store.run(), store.rounds(), aside.run(), aside.rounds()) == ("new", [], None, [1])


def test_where_some_that_were_set_aside_are_gone_none_of_the_others_is_written_over(store):
    for name in ("first", "second", "third"):
        store.begin(name)
        store.save(1, value(1.0))
    shutil.rmtree(store.directory / "earlier-0001")
    store.begin("fourth")
    found = {path.name: ClientStore(path).run() for path in store.directory.glob("earlier-*")}
    assert found == {"earlier-0002": "second", "earlier-0003": "third"}


def test_killed_while_files_are_set_aside_each_has_the_name_of_its_run_and_none_is_lost(tmp_path, monkeypatch):
    class KilledError(BaseException):
        """Instead of a signal."""

    def killed_at(number, tell, then):
        def at(*given, **named):
            if next(tell) == number:
                raise KilledError
            return then(*given, **named)

        return at

    kills, number, killed = [], 0, True
    while killed:
        store, tell = ClientStore(tmp_path / str(number)), itertools.count()
        store.begin("first")
        for round in (1, 2):
            store.save(round, value(float(round)))
        with monkeypatch.context() as patch:
            for name in ("publish", "write_file", "make_directory", "sync_directory", "replace_file"):
                patch.setattr(client_store, name, killed_at(number, tell, getattr(client_store, name)))
            try:
                store.begin("second")
                killed = False
            except KilledError:
                assert store.run() == "first"
                kills.append(store.rounds())
        store.begin("second")
        assert (store.run(), store.rounds()) == ("second", [])
        aside = [one for one in map(ClientStore, store.directory.glob("earlier-*")) if one.rounds()]
        assert {one.run() for one in aside} == {"first"}
        assert sorted(round for one in aside for round in one.rounds()) == [1, 2]
        number += 1
    assert [1, 2] in kills
    assert [2] in kills
    assert [] in kills


def test_what_is_copied_for_another_run_does_not_say_that_it_is_of_this_one(store, tmp_path):
    store.begin("first")
    store.save(1, value(1.0))
    copy_kept(store.directory, tmp_path / "copy", 1)
    copied = ClientStore(tmp_path / "copy")
    assert (copied.run(), copied.rounds()) == (None, [1])


def test_a_name_that_cannot_be_read_is_no_name(store):
    store.begin("first")
    (store.directory / "run.txt").write_bytes(b"\xff")
    with pytest.raises(RunError, match="cannot be read which run"):
        store.begin("second")
