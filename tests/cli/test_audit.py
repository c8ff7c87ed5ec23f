"""A real run with noise, audited: what is printed, what comes back, and that its ledgers are bound by its journal."""

import json
import random
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fedloom.engine.run import resume, run
from fedloom.spec.load import load
from fedloom.store.audit.chain import chain_of
from fedloom.store.journal import Journal
from fedloom.testing.federation import tiny_federation

PRIVATE = '[privacy]\nunit = "example"\nepsilon = 8\ndelta = 1e-3\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run of two private clients; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("audited")
    pilot = tiny_federation(folder, rows=40, rounds=2, method="ffa", ranks=(2, 2), extra=PRIVATE)
    return run(load(pilot), root=folder / "runs").directory


@pytest.fixture
def directory(made, tmp_path):
    shutil.copytree(made, tmp_path / "runs" / "tiny")
    return tmp_path / "runs" / "tiny"


def words(text):
    return " ".join(re.sub("[│┃]", " ", text).split())


def verified(folder, *options):
    script = [sys.executable, "-I", "-S", str(folder / "verify.py"), *options]
    return subprocess.run(script, capture_output=True, text=True, check=False)


def test_what_was_not_changed_is_said_to_be_so(fedloom, directory):
    outcome = fedloom("audit", directory)
    assert outcome.code == 0, outcome.err
    said = words(outcome.out)
    head = Journal(directory / "journal.jsonl").records()[-1].digest
    assert "Nothing was changed since it was written, as far as digests tell." in said
    assert f"to be written down: {head}" in said
    assert "whole lines cut off the end of the journal" in said
    assert said.count("as written") >= 6
    assert "not checked" not in said


def test_damage_is_named_and_ends_with_code_2(fedloom, directory):
    ledger = directory / "clients/site-0/ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"steps": 3', '"steps": 2', 1))
    (directory / "adapter/adapter_config.json").write_text("{}")
    outcome = fedloom("audit", directory)
    assert outcome.code == 2
    said = words(outcome.out)
    assert "1. clients/site-0/ledger.jsonl, line 1: the line was changed (expected digest" in said
    assert "2. adapter/adapter_config.json: the file was changed" in said
    assert "CHANGED: 2 things not as written" in said
    assert "Nothing was changed" not in said


def test_every_release_is_bound_by_the_journal(made):
    contributions = [one for one in Journal(made / "journal.jsonl").records() if one.kind == "contribution"]
    for client in ("site-0", "site-1"):
        lines = Journal(made / "clients" / client / "ledger.jsonl").records()
        heads = [one["ledger"] for one in contributions if one["client"] == client]
        assert heads == ["0" * 64, lines[0].digest]


def test_any_byte_of_a_real_ledger_is_noticed_in_its_line(made):
    data = (made / "clients/site-0/ledger.jsonl").read_bytes()
    for index in range(len(data)):
        changed = data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]
        place = data[:index].count(b"\n") + 1
        assert chain_of(changed, "l").damage[0].where == f"l, line {place}", index


def test_a_ledger_that_lost_its_last_line_is_found_out(fedloom, directory):
    ledger = directory / "clients/site-1/ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().splitlines(keepends=True)[0])
    outcome = fedloom("audit", directory, "--json")
    assert outcome.code == 2
    found = json.loads(outcome.out)
    (damaged,) = [check for check in found["checks"] if check["result"] == "CHANGED"]
    assert (damaged["what"], found["intact"]) == ("ledger of site-1", False)
    assert "the release of round 2 is gone" in damaged["damage"][0]["what"]


def test_the_head_that_was_written_down_is_asked_for(fedloom, directory):
    records = Journal(directory / "journal.jsonl").records()
    assert "it is the head" in words(fedloom("audit", directory, "--expect", records[-1].digest).out)
    assert "1 record came after it" in words(fedloom("audit", directory, "--expect", records[-2].digest).out)
    outcome = fedloom("audit", directory, "--expect", "ab" * 32)
    assert outcome.code == 2
    assert "no line has the digest that was written down" in words(outcome.out)
    outcome = fedloom("audit", directory, "--expect", "ab")
    assert outcome.code == 2
    assert "no digest of a journal's head" in words(outcome.err)


def test_a_resumed_run_with_another_adapter_says_so_in_its_journal(fedloom, directory, made):
    before = len(Journal(directory / "journal.jsonl").records())
    shutil.copytree(made.parent.parent, directory.parent.parent, dirs_exist_ok=True)
    resume(directory)
    assert len(Journal(directory / "journal.jsonl").records()) == before, "the same files need no record"
    (directory / "adapter" / "notes.txt").write_text("ours")
    resume(directory)
    assert Journal(directory / "journal.jsonl").records()[-1].kind == "adapter_rewritten"
    assert fedloom("audit", directory).code == 0


def test_a_bundle_verifies_itself_anywhere(fedloom, directory, tmp_path):
    outcome = fedloom("audit", directory, "--export", tmp_path / "bundle")
    assert outcome.code == 0, outcome.err
    names = {path.relative_to(tmp_path / "bundle").as_posix() for path in (tmp_path / "bundle").rglob("*.*")}
    assert names == {
        "bundle.json", "verify.py", "journal.jsonl", "experiment.toml",
        "rounds/0001/manifest.json", "rounds/0002/manifest.json",
        "clients/site-0/ledger.jsonl", "clients/site-1/ledger.jsonl",
    }  # fmt: skip
    found = verified(tmp_path / "bundle")
    assert (found.returncode, found.stderr) == (0, ""), found.stdout
    assert "Nothing in this bundle was changed since it was written." in found.stdout
    assert "round 2: manifest, and 0 of its 2 files" in found.stdout
    head = Journal(directory / "journal.jsonl").records()[-1].digest
    assert verified(tmp_path / "bundle", "--expect", head).returncode == 0
    assert verified(tmp_path / "bundle", "--expect", "ab" * 32).returncode == 2
    assert verified(tmp_path / "bundle", head).returncode == 1, "what it does not know it does not ignore"


def test_an_archive_with_weights_holds_every_file_of_every_round(fedloom, directory, tmp_path):
    assert fedloom("audit", directory, "--export", tmp_path / "bundle.zip", "--with-weights").code == 0
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        archive.extractall(tmp_path)
    found = verified(tmp_path / "bundle")
    assert found.returncode == 0, found.stdout
    assert "round 2: manifest, and 2 of its 2 files" in found.stdout
    state = tmp_path / "bundle/rounds/0001/adapter.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"x")
    found = verified(tmp_path / "bundle")
    assert found.returncode == 2
    assert "rounds/0001/adapter.safetensors: expected" in found.stdout


def without_list(folder):
    """A bundle whose list is made to fit what is in it, as whoever changes a file can do."""
    import hashlib

    path = folder / "bundle.json"
    bundle = json.loads(path.read_text())
    bundle["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in bundle["files"]}
    path.write_text(json.dumps(bundle, indent=1, sort_keys=True) + "\n")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("journal.jsonl", lambda data: data.replace(b'"round": 2', b'"round": 3', 1), "journal.jsonl, line"),
        ("journal.jsonl", lambda data: b"".join(data.splitlines(keepends=True)[:-1]), "bundle.json, head: expected"),
        ("experiment.toml", lambda data: data + b"\n", "experiment.toml: expected"),
        ("rounds/0002/manifest.json", lambda data: data + b" ", "0002/manifest.json: expected"),
        ("clients/site-0/ledger.jsonl", lambda data: data.splitlines(keepends=True)[0], "round 2, epsilon: expected"),
        ("clients/site-0/ledger.jsonl", lambda data: data.replace(b"36", b"37", 1), "ledger.jsonl, line 1, digest"),
        ("bundle.json", lambda data: data + b" ", "bundle.json, bytes"),
        ("bundle.json", lambda data: data[:1], "cannot be read any further"),
    ],
)
def test_a_changed_bundle_is_found_out_also_where_its_list_was_made_to_fit(
    fedloom, directory, tmp_path, name, change, said
):
    fedloom("audit", directory, "--export", tmp_path / "bundle")
    path = tmp_path / "bundle" / name
    path.write_bytes(change(path.read_bytes()))
    if name != "bundle.json":
        without_list(tmp_path / "bundle")
    found = verified(tmp_path / "bundle")
    assert found.returncode == 2
    assert said in found.stdout
    assert "Traceback" not in found.stderr


def test_any_byte_of_a_bundle_is_noticed(fedloom, directory, tmp_path):
    fedloom("audit", directory, "--export", tmp_path / "bundle")
    draw = random.Random(5)
    for path in sorted((tmp_path / "bundle").rglob("*.json*")):
        data = path.read_bytes()
        index = draw.randrange(len(data))
        path.write_bytes(data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :])
        assert verified(tmp_path / "bundle").returncode == 2, (path, index)
        path.write_bytes(data)


def test_a_file_that_was_put_into_a_bundle_is_named(fedloom, directory, tmp_path):
    fedloom("audit", directory, "--export", tmp_path / "bundle")
    (tmp_path / "bundle/more.txt").write_text("x")
    assert "files that are not listed: expected [], found ['more.txt']" in verified(tmp_path / "bundle").stdout


def test_a_bundle_is_never_written_over_something(fedloom, directory, tmp_path):
    (tmp_path / "bundle.zip").write_text("ours")
    outcome = fedloom("audit", directory, "--export", tmp_path / "bundle.zip")
    assert outcome.code == 2
    assert "there is something here already" in words(outcome.err)
    assert (tmp_path / "bundle.zip").read_text() == "ours"


def test_weights_without_a_bundle_are_refused(fedloom, directory):
    outcome = fedloom("audit", directory, "--with-weights")
    assert outcome.code == 2
    assert "Name one with --export" in words(outcome.err)


def test_the_script_is_short_and_needs_the_standard_library_alone():
    from fedloom.export import verify

    text = Path(verify.__file__).read_text(encoding="utf-8")
    assert len(text.splitlines()) < 100
    assert set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE)) <= set(sys.stdlib_module_names)


@pytest.mark.parametrize(("command", "other"), [("audit", "audit-privacy"), ("audit-privacy", "fedloom audit,")])
def test_the_two_audits_name_each_other(fedloom, command, other):
    assert other in words(fedloom(command, "--help").out)
