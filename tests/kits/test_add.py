"""Clients that come later: new kits under the same authority, and nothing else changes."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from fedloom.errors import KitError, RunError
from fedloom.kits import add as add_module
from fedloom.kits.add import add_clients
from fedloom.kits.read_client import read_client_kit
from fedloom.kits.read_server import read_server_kit

WARD = '\n[[clients]]\nname = "ward-x"\nrank = 1\ndata = "x.jsonl"\n'


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_the_new_client_gets_a_kit(kits, experiment_of):
    before = content(kits)
    made = add_clients(experiment_of(more=WARD), kits)
    assert list(made.clients) == ["ward-x"]
    after = content(kits)
    changed = {str(path) for path in before if before[path] != after[path]}
    assert changed == {"server/pilot.toml", "server/clients.json"}
    new = {str(path) for path in after.keys() - before.keys()}
    assert new
    assert all(path.startswith("clients/ward-x/") for path in new)


def test_the_new_kit_belongs_to_the_others(kits, experiment_of):
    add_clients(experiment_of(more=WARD), kits, days=3)
    server, client = read_server_kit(kits / "server"), read_client_kit(kits / "clients" / "ward-x")
    assert client.ca_fingerprint == read_client_kit(kits / "clients" / "lab_9").ca_fingerprint
    assert client.fingerprint == server.clients["ward-x"].fingerprint
    assert client.expires - client.created == timedelta(days=3)
    assert (kits / "clients" / "ward-x").stat().st_mode & 0o777 == 0o700
    assert (client.key.stat().st_mode & 0o777) == 0o600
    assert server.experiment.client("ward-x").data is None


def test_new_kits_do_not_outlive_the_authority(kits, experiment_of):
    add_clients(experiment_of(more=WARD), kits, days=300)
    assert read_client_kit(kits / "clients" / "ward-x").expires == read_server_kit(kits / "server").expires


def test_the_authoritys_key_is_not_needed(kits, experiment_of):
    (kits / "server" / "ca.key").unlink()
    add_clients(experiment_of(more=WARD), kits)
    assert read_client_kit(kits / "clients" / "ward-x").client == "ward-x"


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("rank = 8", "rank = 9", r"clients.hospital-north.rank was 8 and is 9"),
        ('"fedsa"', '"loom"', r"method.name was 'fedsa' and is 'loom'"),
        ('name = "pilot"', 'name = "other"', r"name was 'pilot' and is 'other'"),
        ('[[clients]]\nname = "lab_9"\ndata = "hf:org/rows"\nrank = 4', "", r"lab_9.*not there"),
    ],
)
def test_another_change_is_refused_by_name(kits, pilot, experiment_of, old, new, match):
    assert old in pilot
    before = content(kits)
    with pytest.raises(KitError, match=match):
        add_clients(experiment_of(pilot.replace(old, new), WARD), kits)
    assert content(kits) == before


def test_nothing_to_add_and_another_server_are_refused(kits, experiment_of):
    with pytest.raises(KitError, match="every client of this configuration has a kit already"):
        add_clients(experiment_of(), kits)
    with pytest.raises(KitError, match=r"for another server \(expected fedloom.example.org:8443, found a:1\)"):
        add_clients(experiment_of(more=WARD), kits, "a:1")
    assert list(add_clients(experiment_of(more=WARD), kits, "fedloom.example.org:8443").clients) == ["ward-x"]


@pytest.mark.parametrize("after", [0, 1])
def test_what_was_cut_short_is_finished_by_the_next(kits, experiment_of, monkeypatch, after):
    """after: how many of pilot.toml and clients.json were written when the disk was full."""
    real, calls = add_module.replace_file, []

    def failing(path, *arguments, **named):
        if len(calls) == after:
            raise RunError("the disk is full")
        calls.append(path)
        real(path, *arguments, **named)

    monkeypatch.setattr(add_module, "replace_file", failing)
    with pytest.raises(RunError):
        add_clients(experiment_of(more=WARD), kits)
    key = (kits / "clients" / "ward-x" / "client.key").read_bytes()
    if after:
        with pytest.raises(KitError, match=re.escape("fedloom provision pilot.toml --add")):
            read_server_kit(kits / "server")
    monkeypatch.setattr(add_module, "replace_file", real)
    add_clients(experiment_of(more=WARD), kits)
    assert (kits / "clients" / "ward-x" / "client.key").read_bytes() == key
    own = read_client_kit(kits / "clients" / "ward-x")
    assert read_server_kit(kits / "server").clients["ward-x"].fingerprint == own.fingerprint


def test_a_stranger_in_the_new_clients_place_is_not_adopted(kits, others, experiment_of):
    (others / "clients" / "lab_9").rename(kits / "clients" / "ward-x")
    try:
        with pytest.raises(KitError, match=r"ward-x: this is no kit of client 'ward-x'.*found lab_9"):
            add_clients(experiment_of(more=WARD), kits)
    finally:
        (kits / "clients" / "ward-x").rename(others / "clients" / "lab_9")
    assert "ward-x" not in read_server_kit(kits / "server").clients
