"""Rounds on the disk: complete or not at all."""

import errno
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.errors import CheckpointDamagedError, RunError
from fedloom.store import checkpoint
from fedloom.store.unfinished import unfinished_name

FILES = {"adapter.safetensors": b"a" * 100, "state.json": b"{}"}


@pytest.fixture
def rounds(tmp_path):
    directory = tmp_path / "rounds"
    for round in (1, 2, 3):
        checkpoint.commit(directory, round, {**FILES, "round": str(round).encode()})
    return directory


def test_what_is_committed_is_read(rounds):
    digest = checkpoint.digest_of(rounds, 2)
    assert checkpoint.read(rounds, 2, digest) == {**FILES, "round": b"2"}
    assert sorted(entry.name for entry in rounds.iterdir()) == ["0001", "0002", "0003"]
    manifest = json.loads((rounds / "0002" / "manifest.json").read_text())
    assert manifest["files"]["adapter.safetensors"]["bytes"] == 100


def test_the_digest_is_that_of_the_content(tmp_path):
    digests = {checkpoint.commit(tmp_path / name, 1, dict(reversed(FILES.items()))) for name in "xy"}
    assert digests == {checkpoint.commit(tmp_path / "z", 7, FILES)}
    assert checkpoint.commit(tmp_path / "w", 1, {**FILES, "state.json": b"{ }"}) not in digests


def test_committing_again_is_fine_when_nothing_differs(rounds):
    files = {**FILES, "round": b"2"}
    assert checkpoint.commit(rounds, 2, files) == checkpoint.digest_of(rounds, 2)
    with pytest.raises(RunError, match="the round is there already, with other files"):
        checkpoint.commit(rounds, 2, FILES)
    assert checkpoint.read(rounds, 2) == files


DAMAGES = {
    "changed": (
        lambda folder: (folder / "round").write_bytes(b"9"),
        "0003/round: the file is damaged .expected .*found ",
    ),
    "shortened": (lambda folder: (folder / "adapter.safetensors").write_bytes(b"a" * 99), "adapter.safetensors"),
    "removed": (lambda folder: (folder / "state.json").unlink(), "state.json: the file cannot be read"),
    "added": (lambda folder: (folder / "more").write_bytes(b""), "more: the file is not in the manifest"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json: the file cannot be read"),
    "other manifest": (lambda folder: (folder / "manifest.json").write_text("{}"), "the manifest"),
    "path in manifest": (
        lambda folder: (folder / "manifest.json").write_text('{"files": {"../0001/round": {}}}'),
        "names a file elsewhere",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_named_with_the_rounds_that_are_intact(rounds, damage, message):
    damage(rounds / "0003")
    with pytest.raises(CheckpointDamagedError, match=message) as error:
        checkpoint.read(rounds, 3)
    assert "round 3" in str(error.value)
    assert "Rounds up to 2 are intact" in str(error.value)
    assert checkpoint.intact_rounds(rounds) == [1, 2]


def test_a_round_is_held_to_the_digest_that_was_recorded(rounds):
    with pytest.raises(CheckpointDamagedError, match=f"expected abc, found {checkpoint.digest_of(rounds, 1)}"):
        checkpoint.read(rounds, 1, "abc")


def test_only_intact_rounds_are_called_intact(rounds):
    for round, words in ((2, "Of the earlier rounds .1. are intact"), (1, "No earlier round is intact")):
        (rounds / f"{round:04d}" / "round").unlink()
        with pytest.raises(CheckpointDamagedError, match=words):
            checkpoint.read(rounds, 3 if round == 2 else 1, "abc")


@settings(deadline=None)
@given(st.data())
def test_no_changed_byte_goes_unseen(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("rounds")
    digest = checkpoint.commit(directory, 1, FILES)
    path = directory / "0001" / data.draw(st.sampled_from([*FILES, "manifest.json"]))
    whole = path.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(
        whole[:position] + bytes([whole[position] ^ data.draw(st.integers(1, 255))]) + whole[position + 1 :]
    )
    with pytest.raises(CheckpointDamagedError, match="round 1"):
        checkpoint.read(directory, 1, digest)


@pytest.mark.parametrize("after", range(4))
def test_a_full_disk_leaves_the_earlier_rounds(rounds, full_disk, after):
    undo = full_disk(after)
    with pytest.raises(
        RunError, match=r"0004: the disk is full .expected \d+ bytes free, found \d+ bytes free"
    ) as error:
        checkpoint.commit(rounds, 4, {**FILES, "round": b"four"})
    assert str(error.value).endswith("Rounds up to 3 are intact. Make room, then resume")
    undo()
    assert sorted(entry.name for entry in rounds.iterdir()) == ["0001", "0002", "0003"]
    assert checkpoint.commit(rounds, 4, FILES)


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "rounds").write_text("a file")
    with pytest.raises(RunError, match=r"cannot be written .found Not a directory"):
        checkpoint.commit(tmp_path / "rounds", 1, FILES)


def test_what_a_kill_left_is_removed(rounds):
    (rounds / ".0004.tmp-99").mkdir()
    (rounds / ".0004.tmp-99" / "state.json").write_bytes(b"{")
    assert checkpoint.rounds(rounds) == [1, 2, 3]
    assert checkpoint.remove_unfinished(rounds) == [".0004.tmp-99"]
    assert checkpoint.rounds(rounds) == [1, 2, 3]
    assert not list(rounds.glob(".*"))


def test_a_large_file_is_written_by_its_writer_and_as_readable_as_the_others(tmp_path):
    written = checkpoint.Written(lambda path: (path.write_bytes(b"large"), path.chmod(0o600)), 5)
    checkpoint.commit(tmp_path, 1, {"large": written, "small": b"small"})
    assert checkpoint.read(tmp_path, 1) == {"large": b"large", "small": b"small"}
    modes = {(tmp_path / "0001" / name).stat().st_mode for name in ("large", "small")}
    assert len(modes) == 1


def test_a_disk_that_is_full_in_the_middle_of_a_large_file(rounds):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match=r"0004: the disk is full .expected 1234 bytes free"):
        checkpoint.commit(rounds, 4, {"large": checkpoint.Written(full, 1234)})
    assert sorted(entry.name for entry in rounds.iterdir()) == ["0001", "0002", "0003"]


def test_what_a_killed_process_of_the_same_number_left_is_in_nobodys_way(tmp_path):
    left = unfinished_name(tmp_path / "0001")
    left.mkdir()
    (left / "half").write_bytes(b"a")
    digest = checkpoint.commit(tmp_path, 1, {"a": b"1"})
    assert checkpoint.read(tmp_path, 1, digest) == {"a": b"1"}
    assert not left.exists()
