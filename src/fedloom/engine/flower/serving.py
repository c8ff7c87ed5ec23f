"""`fedloom serve`: the server of a kit, with its clients registered, until it is ended."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from fedloom.engine.flower import commands
from fedloom.engine.flower.processes import Say, alone, ask, end, end_left_over, environment, start
from fedloom.errors import RunError
from fedloom.kits.read_server import ServerKit
from fedloom.store.unfinished import replace_file

START = 90.0  # seconds that the server has to answer for the first time
RESTART = 3.0  # seconds before a server that died is started again


@dataclass(frozen=True)
class Server:
    """Where a served kit keeps its state; `run`, `resume` and `status` find it there.

    home: the FLWR_HOME of the operator's commands.  runs: folder of the run directories.
    """

    kit: ServerKit
    runs: Path

    @property
    def state(self) -> Path:
        return self.kit.path.absolute() / "state"

    @property
    def home(self) -> Path:
        return self.state / "flower"

    @property
    def local_address(self) -> str:
        """By which the operator's commands reach it from the same machine."""
        return f"127.0.0.1:{self.kit.address.port}"

    @property
    def log(self) -> Path:
        return self.state / "superlink.log"

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.home)


def serve(server: Server, say: Say, *, stopped: Callable[[], bool] = lambda: False) -> None:
    """Start the server, register the clients, and start it again whenever it dies.

    Raises: RunError if it cannot be started or a client cannot be registered, or another one serves this kit.
    """
    _prepare(server)
    with alone(server.state / "lock", "this kit is being served already"):
        end_left_over(server.state, say)
        process = _started(server, say)
        try:
            _register(server, say)
            say(f"serving {server.kit.run} at {server.kit.address}; runs in {server.runs}; log in {server.log}")
            while not stopped():
                time.sleep(0.5)
                if process.poll() is not None:
                    say(f"the server died with exit code {process.returncode}; it is started again")
                    say("a run that was in progress ends within a minute; then: fedloom resume RUN --engine flower")
                    time.sleep(RESTART)
                    process = _started(server, say)
        finally:
            end(process)


def _prepare(server: Server) -> None:
    for folder in (server.state, server.home, server.state / "keys"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = commands.connection_file(server.local_address, server.kit.ca_certificate)
    (server.home / "config.toml").write_text(text, encoding="utf-8")
    facts = {"pid": os.getpid(), "runs": str(server.runs.absolute())}
    (server.state / "serving.json").write_text(json.dumps(facts), encoding="utf-8")


def _started(server: Server, say: Say) -> subprocess.Popen[bytes]:
    kit = server.kit
    command = commands.superlink(
        host="0.0.0.0" if not _loopback(kit) else kit.address.host,
        port=kit.address.port,
        certificate=kit.certificate.absolute(),
        key=kit.key.absolute(),
        authority=kit.ca_certificate.absolute(),
        database=server.state / "superlink.db",
        log=server.log,
    )
    out = server.state / "superlink.out"
    process = start("superlink", command, say, env=server.environment, state=server.state, log=out)
    ends = time.monotonic() + START
    while True:
        try:
            ask(commands.listed(), lambda _: None, env=server.environment)
            return process
        except RunError as error:
            if process.poll() is not None or time.monotonic() > ends:
                end(process)
                raise RunError(
                    "the server does not start",
                    where=out,
                    found=error.found,
                    do=f"Is port {kit.address.port} free? The file has its output",
                ) from error
            time.sleep(1)


def _loopback(kit: ServerKit) -> bool:
    return kit.address.host in ("127.0.0.1", "localhost")


def _register(server: Server, say: Say) -> None:
    """Every client that Flower does not know yet; whom it knows is in nodes.json, as Flower tells no names again."""
    known = node_ids(server)
    for name, client in server.kit.clients.items():
        if name in known:
            continue
        path = server.state / "keys" / f"{name}.pub"
        path.write_bytes(_openssh(client.public_key))
        known[name] = str(ask(commands.register(path, name), say, env=server.environment)["node-id"])
        data = json.dumps(known, indent=1).encode()
        replace_file(server.state / "nodes.json", data, intact="The server runs", again="serve")


def node_ids(server: Server) -> dict[str, str]:
    """client -> the number that Flower gave its node."""
    path = server.state / "nodes.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _openssh(pem: str) -> bytes:
    key = load_pem_public_key(pem.encode())
    assert isinstance(key, EllipticCurvePublicKey), "the kit was checked"
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
