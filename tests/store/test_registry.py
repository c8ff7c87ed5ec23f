"""The registry of promoted models: a chain, numbers that are used once, and digests that are compared."""

import json
from dataclasses import replace

import pytest

from fedloom.errors import JournalDamagedError, RunError
from fedloom.store import registry as module
from fedloom.store import rollback
from fedloom.store.durable import lock
from fedloom.store.registry import Origin, Registry

ORIGIN = Origin("pilot", 2, "d" * 64, "c" * 64, "e" * 64, "base", "b" * 64, rows={"a": "f" * 64})


def write(place):
    (place / "part").mkdir(parents=True)
    (place / "weights").write_bytes(b"w")
    (place / "part" / "config").write_bytes(b"c")


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "runs")


def test_versions_of_a_name_follow_each_other(registry):
    labels = [registry.promote(name, ORIGIN, write).label for name in ("prod", "test", "prod")]
    assert labels == ["prod-1", "test-1", "prod-2"]
    first, second = registry.versions("prod")
    assert (first.parent, second.parent) == (None, "prod-1")
    assert first.origin == ORIGIN
    assert set(first.files) == {"weights", "part/config"}
    assert [version.label for version in registry.versions()] == labels
    lines = [json.loads(line) for line in registry.path.read_text().splitlines()]
    assert [line["previous"] for line in lines[1:]] == [line["record_digest"] for line in lines[:-1]]


def test_a_promotion_that_was_killed_leaves_no_version_and_its_number(registry, monkeypatch):
    def killed(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "file_digests", killed)
        with pytest.raises(KeyboardInterrupt):
            registry.promote("prod", ORIGIN, write)
    assert registry.versions() == []
    assert registry.promote("prod", ORIGIN, write).label == "prod-2"


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "x" * 65])
def test_a_name_is_no_path(name, registry):
    with pytest.raises(RunError, match="not the name of a version"):
        registry.promote(name, ORIGIN, write)
    assert not registry.root.exists()


def test_what_was_done_to_the_files_is_found(registry):
    version = registry.promote("prod", ORIGIN, write)
    assert registry.verify(version).problems == ()
    place = registry.place(version)
    (place / "weights").write_bytes(b"x")
    (place / "part" / "config").unlink()
    (place / "more").write_bytes(b"m")
    assert set(registry.verify(version).problems) == {
        "weights was changed",
        "part/config is missing",
        "more was added",
    }


def test_where_the_round_is_and_whether_it_is_sound(registry, run, commit):
    digests = {round: commit(round) for round in (1, 2)}
    registry = Registry(run.path.parent)
    version = registry.promote("prod", replace(ORIGIN, checkpoint=digests[2]), write)
    assert registry.verify(version).place == "run"
    rollback.roll_back(run.path, run.journal.records(), 1, run.journal.append)
    assert (registry.verify(version).place, registry.verify(version).problems) == ("rolled back", ())
    (run.path / "rolled-back" / "1" / "0002" / "state.json").write_bytes(b"{}")
    assert "state.json: the file is damaged" in registry.verify(version).problems[0]
    (run.path / "rolled-back").rename(run.path / "trash")
    assert registry.verify(version).place == "gone"


def test_an_edited_registry_and_one_in_use_are_refused(registry):
    registry.promote("prod", ORIGIN, write)
    held = lock(registry.root / "versions" / ".lock")
    with pytest.raises(RunError, match="the registry is in use"):
        registry.promote("prod", ORIGIN, write)
    module.unlock(held)
    with pytest.raises(RunError, match=r"no such version .expected one of \['prod'\]"):
        registry.versions("test")
    registry.path.write_text(registry.path.read_text().replace('"round": 2', '"round": 3'))
    with pytest.raises(JournalDamagedError):
        registry.versions()
