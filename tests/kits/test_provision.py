"""What provisioning leaves on the disk: every file, its mode, and nobody's secret in another's folder."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from datetime import timedelta
from itertools import chain
from pathlib import Path

import pytest

from fedloom.errors import ConfigError, KitError, RunError
from fedloom.kits import provision as provision_module
from fedloom.kits.provision import MAX_DAYS, provision
from fedloom.kits.read_client import read_client_kit
from fedloom.kits.read_server import read_server_kit
from fedloom.spec.load import load
from fedloom.store import durable

RANKS = {"hospital-north": 8, "clinic.east": 2, "lab_9": 4}
SERVER_FILES = {
    "kit.toml", "pilot.toml", "ca.crt", "ca.key", "server.crt", "server.key", "clients.json", "start.sh",
    "fedloom-server.service", "README.md",
}  # fmt: skip
CLIENT_FILES = {
    "kit.toml", "ca.crt", "client.key", "client.pub", "site.toml", "start.sh", "fedloom-client.service", "Dockerfile",
    ".dockerignore", "compose.yaml", "README.md",
}  # fmt: skip
PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END", re.DOTALL)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_file_is_there_and_no_other(made):
    assert {path.name for path in made.iterdir()} == {"server", "clients"}
    assert {path.name for path in (made / "clients").iterdir()} == set(RANKS)
    assert {path.name for path in (made / "server").iterdir()} == SERVER_FILES
    for name in RANKS:
        assert {path.name for path in (made / "clients" / name).iterdir()} == CLIENT_FILES


def test_modes_let_nobody_else_in(made):
    folders = [made, *(path for path in made.rglob("*") if path.is_dir())]
    assert {mode(path) for path in folders} == {0o700}
    keys = [path for path in files_below(made) if path.suffix == ".key"]
    assert len(keys) == 5
    assert {mode(path) for path in keys} == {0o600}
    assert {mode(path) for path in files_below(made) if path.name == "start.sh"} == {0o700}


def test_private_keys_are_closed_from_their_first_moment(tmp_path, monkeypatch, experiment_of):
    """Also where the user's umask would leave files open."""
    opened, real = {}, os.open

    def watched(path, flags, mode=0o777, **named):
        descriptor = real(path, flags, mode, **named)
        if flags & os.O_CREAT:
            opened[Path(path).name] = stat.S_IMODE(os.fstat(descriptor).st_mode)
        return descriptor

    before = os.umask(0)
    try:
        monkeypatch.setattr(os, "open", watched)
        provision(experiment_of(), tmp_path / "kits")
    finally:
        os.umask(before)
    assert {name: opened[name] for name in opened if name.endswith(".key")} == dict.fromkeys(
        ("ca.key", "server.key", "client.key"), 0o600
    )
    assert {mode(path) for path in (tmp_path / "kits").rglob("*") if path.is_dir()} == {0o700}


def test_no_private_key_is_there_twice(made):
    keys = list(chain(*(PRIVATE.findall(path.read_text()) for path in files_below(made))))
    assert len(keys) == len(set(keys)) == 2 + len(RANKS)


def test_a_client_has_no_other_material_than_its_own(made):
    registered = read_server_kit(made / "server").clients
    for name in RANKS:
        content = "\n".join(path.read_text() for path in files_below(made / "clients" / name))
        assert registered[name].fingerprint in content
        assert len(PRIVATE.findall(content)) == 1
        for other in set(RANKS) - {name}:
            public = (made / "clients" / other / "client.pub").read_text().split()[1]
            assert not [secret for secret in (other, public, registered[other].fingerprint) if secret in content]


def test_the_server_has_no_key_of_a_client_and_no_path_of_rows(made):
    content = "\n".join(path.read_text() for path in files_below(made / "server"))
    own = [(made / "clients" / name / "client.key").read_text().strip() for name in RANKS]
    assert not [key for key in own if key in content]
    assert "north.jsonl" not in content
    assert "org/rows" not in content


def test_kits_read_back_as_they_were_asked_for(made):
    server = read_server_kit(made / "server")
    assert (server.run, str(server.address)) == ("pilot", "fedloom.example.org:8443")
    assert server.expires - server.created == timedelta(days=30)
    assert {name: client.rank for name, client in server.clients.items()} == RANKS
    for name, registered in server.clients.items():
        client = read_client_kit(made / "clients" / name)
        assert (client.client, client.run, client.address) == (name, "pilot", server.address)
        assert (client.fingerprint, client.id) == (registered.fingerprint, registered.kit)
        assert client.expires == registered.expires == server.expires


def test_ranks_may_be_left_to_the_planner(pilot, tmp_path, experiment_of):
    text = pilot.replace("rank = 4", 'rank = "auto"\nmemory = "3 GB"')
    made = provision(experiment_of(text), tmp_path / "kits", "fedloom.example.org:8443")
    server = read_server_kit(tmp_path / "kits" / "server")
    assert {name: client.rank for name, client in server.clients.items()} == RANKS | {"lab_9": "auto"}
    assert "Factors of the ranks that are planned for" in (made.client_kit("lab_9") / "README.md").read_text()


def test_the_experiment_of_the_server_is_the_pilot_without_data(made, experiment_of):
    pilot, kept = experiment_of(), read_server_kit(made / "server").experiment
    assert [client.data for client in kept.clients] == [None] * 3
    assert kept.clients[1].columns == pilot.clients[1].columns
    without = [client.model_copy(update={"data": None}) for client in pilot.clients]
    assert kept == pilot.model_copy(update={"clients": tuple(without)})


def test_a_common_source_stays_out_with_its_partition(tmp_path, experiment_of):
    text = '[data]\nsource = "hf:secret/rows"\n[data.partition]\nkind = "dirichlet"\ncolumn = "kind"\n'
    provision(experiment_of(text + '[[clients]]\nname = "a"\n[[clients]]\nname = "b"\n'), tmp_path / "kits")
    kept = read_server_kit(tmp_path / "kits" / "server").experiment
    assert (kept.data.source, kept.data.partition.column) == (None, None)
    assert "secret" not in (tmp_path / "kits" / "server" / "pilot.toml").read_text()


def test_a_pilot_without_any_data_is_refused_for_one_machine_only(made):
    with pytest.raises(ConfigError, match="has no data"):
        load(made / "server" / "pilot.toml")
    assert len(load(made / "server" / "pilot.toml", data_at_sites=True).clients) == 3


def test_site_settings_hint_at_the_rows_but_not_at_the_operators_folders(made):
    north = (made / "clients" / "hospital-north" / "site.toml").read_text()
    assert "# The operator's pilot.toml says: north.jsonl\n" in north
    assert "/secret" not in north
    assert "pilot.toml says" not in (made / "clients" / "clinic.east" / "site.toml").read_text()
    assert "says: hf:org/rows" in (made / "clients" / "lab_9" / "site.toml").read_text()


def test_two_federations_share_nothing(made, others):
    keys = [PRIVATE.findall(path.read_text()) for path in (*files_below(made), *files_below(others))]
    assert len(set(chain(*keys))) == 2 * (2 + len(RANKS))
    assert read_client_kit(made / "clients/lab_9").id != read_client_kit(others / "clients/lab_9").id


def test_start_scripts_start_the_kit_where_it_lies(kits, tmp_path):
    """With the arguments that they were given, from any working directory."""
    fake = tmp_path / "bin" / "fedloom"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\npwd\necho "$@"\n')
    fake.chmod(0o755)
    for folder, command in (("server", "serve"), ("clients/lab_9", "join")):
        done = subprocess.run(
            [kits / folder / "start.sh", "--data", "our rows.jsonl"],
            env={"PATH": f"{fake.parent}:/usr/bin:/bin"},
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{kits / folder}\n{command} . --data our rows.jsonl\n"
        assert len((kits / folder / "start.sh").read_text().splitlines()) == 3


def test_an_empty_folder_is_filled_and_another_one_refused(tmp_path, experiment_of):
    (tmp_path / "kits").mkdir()
    provision(experiment_of(), tmp_path / "kits")
    before = {path: path.read_bytes() for path in files_below(tmp_path)}
    with pytest.raises(KitError, match=r"kits: there is something in this folder already.*--add"):
        provision(experiment_of(), tmp_path / "kits")
    assert {path: path.read_bytes() for path in files_below(tmp_path)} == before


def test_neither_a_file_nor_the_working_directory_gives_way(tmp_path, monkeypatch, experiment_of):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(KitError, match="cannot be put here"):
        provision(experiment_of(), tmp_path / "file")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").unlink()
    with pytest.raises(KitError, match="cannot be put here"):
        provision(experiment_of(), ".")
    assert tmp_path.is_dir()


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, experiment_of):
    written = []

    def full(path, data, **named):
        written.append(path)
        if path.name == "client.key":
            raise OSError(28, "No space left on device")
        durable.write_file(path, data, **named)

    monkeypatch.setattr(provision_module, "write_file", full)
    with pytest.raises(RunError, match="the disk is full"):
        provision(experiment_of(), tmp_path / "kits")
    assert len(written) > len(SERVER_FILES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("days", [0, -1, MAX_DAYS + 1])
def test_days_have_bounds(tmp_path, days, experiment_of):
    with pytest.raises(KitError, match=f"--days.*1 to {MAX_DAYS}, found {days}"):
        provision(experiment_of(), tmp_path / "kits", days=days)
    assert not (tmp_path / "kits").exists()
