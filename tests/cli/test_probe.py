"""fedloom probe: the table, the files, kits, and exit code 2 with nothing written for what cannot be."""

from __future__ import annotations

import shutil

import pytest

from fedloom.kits.provision import provision
from fedloom.planning.probe_file import from_json
from fedloom.spec.load import load


def test_a_file_for_each_client_from_one_measurement(fedloom, pilot, tmp_path):
    done = fedloom("probe", pilot, "--all", "--out", tmp_path / "probes", "--seconds", 1, "--upload-mbit", 8)
    assert done.code == 0, done.err
    files = sorted((tmp_path / "probes").iterdir())
    assert [file.name for file in files] == [f"site-{number}.probe.json" for number in range(3)]
    probes = [from_json(file.read_text(), file) for file in files]
    assert len({probe.machine.model_dump_json() for probe in probes}) == 1
    assert {probe.bandwidth.upload for probe in probes} == {1e6}
    said = " ".join(done.out.split())
    assert "declared and not measured" in said
    for part in ("tokens/s", "site-2: 11 rows to train, 1 held out", "up to 128: 11", "12 trials"):
        assert part in said
    assert "not available" not in said


@pytest.fixture
def plain_only(monkeypatch):
    """Only the base as it is: the quantised ones take as long again, and are measured above."""
    monkeypatch.setattr("fedloom.engine.probe.MOST_BITS", ("none",))


def test_the_kit_of_a_client_with_what_its_site_says(fedloom, pilot, tmp_path, plain_only):
    provision(load(pilot), tmp_path / "kits", "fedloom.example.org:8443", days=30)
    kit = tmp_path / "kits" / "clients" / "site-1"
    site = kit / "site.toml"
    model = pilot.parent / "model"
    site.write_text(
        f'data = "{pilot.parent / "site-1.jsonl"}"\nmodel = "{model}"\nmemory_limit = "3 GB"\n{site.read_text()}'
    )
    out = tmp_path / "own.json"
    done = fedloom("probe", kit, "--out", out, "--seconds", 1, "--max-tokens", 96)
    assert done.code == 0, done.err
    found = from_json(out.read_text())
    assert (found.client, found.memory_available, found.base.identity) == ("site-1", 3_000_000_000, "model")
    assert "task: generation" in done.out


def refused(fedloom, tmp_path, monkeypatch, *arguments):
    monkeypatch.chdir(tmp_path)
    done = fedloom("probe", *arguments)
    assert done.code == 2
    assert not list(tmp_path.glob("*.probe.json"))
    assert "Traceback" not in done.err
    return done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "either --client NAME or --all"),
        (["--all", "--client", "site-0"], "either --client NAME or --all"),
        (["--all", "--data", "x.jsonl"], "one client's"),
        (["--client", "site-9"], "no client 'site-9'"),
        (["--client", "site-0", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--client", "site-0", "--server", "nonsense"], "no address of a server"),
        (["--client", "site-0", "--upload-mbit", "nan"], "--upload-mbit: this is no number to measure by"),
        (["--client", "site-0", "--download-mbit", "inf"], "--download-mbit: this is no number to measure by"),
        (["--client", "site-0", "--seconds", "nan"], "--seconds: this is no number to measure by"),
    ],
)
def test_what_cannot_be_asked_for(arguments, said, fedloom, pilot, tmp_path, monkeypatch):
    assert said in refused(fedloom, tmp_path, monkeypatch, pilot, *arguments)


def test_a_base_that_cannot_be_loaded(fedloom, pilot, tmp_path, monkeypatch):
    (pilot.parent / "model" / "model.safetensors").write_bytes(b"spoiled")
    assert "cannot be loaded" in refused(fedloom, tmp_path, monkeypatch, pilot, "--client", "site-0")


def test_rows_and_kits_that_are_not_there(fedloom, pilot, tmp_path, monkeypatch):
    provision(load(pilot), tmp_path / "kits", "fedloom.example.org:8443", days=30)
    kit = tmp_path / "kits" / "clients" / "site-1"
    assert "no rows yet" in refused(fedloom, tmp_path, monkeypatch, kit)
    assert "another client's" in refused(fedloom, tmp_path, monkeypatch, kit, "--client", "site-0")
    assert "no task of this name" in refused(
        fedloom, tmp_path, monkeypatch, kit, "--data", "x.jsonl", "--task", "poems"
    )
    shutil.rmtree(kit)
    kit.mkdir()
    assert str(kit) in refused(fedloom, tmp_path, monkeypatch, kit)


def test_a_place_that_cannot_be_written_is_named(fedloom, pilot, tmp_path, monkeypatch, plain_only):
    (tmp_path / "afile").write_text("x")
    place = tmp_path / "afile" / "x.json"
    said = refused(fedloom, tmp_path, monkeypatch, pilot, "--client", "site-0", "--seconds", 1, "--out", place)
    assert f"{place}: cannot be written" in said
