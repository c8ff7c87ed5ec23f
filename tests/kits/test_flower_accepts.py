"""Flower's own programs with the kits as they are: TLS with the pinned authority, and only registered keys come in."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedloom.kits.provision import provision

pytest.importorskip("flwr")
pytestmark = pytest.mark.slow
PROGRAMS = Path(sys.executable).parent
TLS = ["--ssl-certfile", "server.crt", "--ssl-keyfile", "server.key", "--ssl-ca-certfile", "ca.crt"]
NODE = ["--root-certificates", "ca.crt", "--auth-supernode-private-key", "client.key"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture
def start(tmp_path, monkeypatch):
    """start(folder, program, ...) in the background; all of them end with the test."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "0")
    monkeypatch.setenv("FLWR_DISABLE_UPDATE_CHECK", "1")
    monkeypatch.setenv("PATH", f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
    running = []

    def started(folder, program, *arguments):
        with open(tmp_path / f"{len(running)}.log", "w") as log:
            running.append(subprocess.Popen([program, *arguments], cwd=folder, stdout=log, stderr=log))
        return running[-1]

    yield started
    for process in reversed(running):
        process.terminate()
        process.wait(30)


def flwr(*arguments) -> str:
    return subprocess.run(["flwr", *arguments], capture_output=True, text=True, check=False).stdout


def eventually(test, seconds=90):
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(1)


def test_flower_takes_a_registered_client_and_no_other(tmp_path, start, experiment_of):
    address = f"127.0.0.1:{free_port()}"
    provision(experiment_of(), tmp_path / "kits", address, days=1)
    server, clients = tmp_path / "kits" / "server", tmp_path / "kits" / "clients"
    (tmp_path / "flwr").mkdir()
    pinned = clients / "lab_9" / "ca.crt"
    connection = (
        f'[superlink]\ndefault = "kit"\n[superlink.kit]\naddress = "{address}"\nroot-certificates = "{pinned}"\n'
    )
    (tmp_path / "flwr" / "config.toml").write_text(connection)
    modes = ("--enable-supernode-auth", "--disable-runtime-dependency-installation")
    start(server, "flower-superlink", *TLS, *modes, "--host", "127.0.0.1", "--port", address.split(":")[1])
    register = ("supernode", "register", str(clients / "lab_9" / "client.pub"), "kit")
    eventually(lambda: "registered successfully" in flwr(*register))
    known, stranger = (
        start(clients / name, "flower-supernode", *NODE, "--superlink", address, "--port", str(free_port()))
        for name in ("lab_9", "clinic.east")
    )
    listing = ("supernode", "list", "kit", "--format", "json")
    eventually(lambda: '"online"' in flwr(*listing))
    eventually(lambda: stranger.poll() is not None)
    assert known.poll() is None
    assert len(json.loads(flwr(*listing))["nodes"]) == 1
