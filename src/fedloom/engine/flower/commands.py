"""The Flower commands that ours run, as values: `serve`, `join` and `run` print them before they start them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from fedloom.errors import RunError

CONNECTION = "fedloom"  # the name of the server in Flower's configuration


def superlink(
    *, host: str, port: int, certificate: Path, key: Path, authority: Path, database: Path, log: Path
) -> list[str]:
    """The server: TLS, only registered nodes, a database that outlives it, nothing installed at run time."""
    return [
        _program("flower-superlink"),
        *("--host", host, "--port", str(port)),
        *("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--ssl-ca-certfile", str(authority)),
        "--enable-supernode-auth",
        *("--database", str(database), "--log-file", str(log)),
        "--disable-runtime-dependency-installation",
    ]


def supernode(*, server: str, authority: Path, key: Path, port: int, config: Mapping[str, str | int]) -> list[str]:
    """A site: the pinned authority, its own key, and what its ClientApp is to know."""
    return [
        _program("flower-supernode"),
        *("--superlink", server, "--root-certificates", str(authority)),
        *("--auth-supernode-private-key", str(key)),
        *("--port", str(port)),
        *("--node-config", " ".join(f"{name}={json.dumps(value)}" for name, value in config.items())),
    ]


def register(public_key: Path, name: str) -> list[str]:
    """Let a node with this key join."""
    return [_program("flwr"), "supernode", "register", str(public_key), CONNECTION, "--name", name, "--format", "json"]


def registered() -> list[str]:
    """All nodes, with their states."""
    return [_program("flwr"), "supernode", "list", CONNECTION, "--format", "json"]


def submit(app: Path) -> list[str]:
    """Start a run of the app in a folder."""
    return [_program("flwr"), "run", str(app), CONNECTION, "--format", "json"]


def listed() -> list[str]:
    """All runs, with their states."""
    return [_program("flwr"), "list", CONNECTION, "--format", "json"]


def connection_file(address: str, authority: Path) -> str:
    """The config.toml of a FLWR_HOME of our own, so that nothing is written into the user's."""
    table = {"address": address, "root-certificates": str(authority.absolute())}
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(["[superlink]", f'default = "{CONNECTION}"', "", f"[superlink.{CONNECTION}]", *lines, ""])


APP = """\
[project]
name = "fedloom-run"
version = "{version}"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fedloom"

[tool.flwr.app.components]
serverapp = "fedloom.engine.flower.server_app:app"
clientapp = "fedloom.engine.flower.client_app:app"

[tool.flwr.app.config]
{config}
"""


def app_file(version: str, config: Mapping[str, str | int | float | bool]) -> str:
    """The pyproject.toml of an app that holds nothing but this: it names the shipped ServerApp and ClientApp."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in config.items()]
    return APP.format(version=version, config="\n".join(lines))


def _program(name: str) -> str:
    """The program beside this Python. Raises: RunError if Flower is not installed there."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise RunError("Flower is not installed", where=path, do="Install it: pip install 'fedloom[flower]'")
    return str(path)
