"""What is made beside its place: there completely, or nothing of it."""

import os

import pytest

from fedloom.errors import RunError
from fedloom.store.durable import write_file
from fedloom.store.unfinished import new_directory, replace_file


@pytest.fixture(params=["new", "there"])
def place(request, tmp_path):
    path = tmp_path / "out"
    if request.param == "there":
        path.mkdir()
        (path / "a").write_text("old")
    return path


def files_below(path):
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


def test_a_directory_is_there_when_the_block_ends(place, tmp_path):
    inode = place.stat().st_ino if place.exists() else None
    with new_directory(place) as unfinished:
        (unfinished / "a").write_text("new")
        (unfinished / "deep").mkdir()
        (unfinished / "deep" / "b").write_text("b")
        assert "new" not in (files_below(place) if inode else {}).get("a", "")
    assert files_below(tmp_path) == {"out/a": "new", "out/deep/b": "b"}
    assert inode in (None, place.stat().st_ino)


def test_a_block_that_fails_leaves_nothing(place, tmp_path):
    before = files_below(tmp_path), place.exists()

    def fail():
        with new_directory(place) as unfinished:
            (unfinished / "a").write_text("new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (files_below(tmp_path), place.exists()) == before
    assert not [entry for entry in tmp_path.rglob("*") if entry.name.startswith(".")]


def test_modes_hold_from_the_first_moment(tmp_path):
    before = os.umask(0)
    try:
        with new_directory(tmp_path / "out", mode=0o700) as unfinished:
            assert unfinished.stat().st_mode & 0o777 == 0o700
            write_file(unfinished / "key", b"secret", mode=0o600)
            write_file(unfinished / "open", b"")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert modes == {"key": 0o600, "open": 0o644}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_a_file_is_replaced_or_stays(tmp_path, full_disk):
    path = tmp_path / "report.html"
    replace_file(path, b"old", intact="All is well", again="try again")
    undo = full_disk()
    with pytest.raises(RunError, match=r"report.html: the disk is full .expected 9 bytes.*All is well.*then try again"):
        replace_file(path, b"x" * 9, intact="All is well", again="try again")
    undo()
    assert os.listdir(tmp_path) == ["report.html"]
    assert path.read_bytes() == b"old"
    replace_file(path, b"new", intact="", again="")
    assert path.read_bytes() == b"new"


def test_folders_in_a_directory_that_is_there_are_filled_and_not_replaced(tmp_path):
    for round, name in enumerate(("first", "second")):
        with new_directory(tmp_path / "place") as unfinished:
            (unfinished / "inner" / "deeper").mkdir(parents=True)
            (unfinished / "inner" / "deeper" / "both").write_text(str(round))
            (unfinished / "inner" / name).write_text(name)
    inner = tmp_path / "place" / "inner"
    assert (inner / "deeper" / "both").read_text() == "1"
    assert sorted(path.name for path in inner.iterdir()) == ["deeper", "first", "second"]
    assert [path.name for path in tmp_path.rglob(".*")] == []
