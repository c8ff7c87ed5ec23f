"""fedloom dashboard: a live page of a run, or of all runs in a folder, on this machine only."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.console import console
from fedloom.errors import RunError

NAME = "dashboard"
LOOPBACK = "127.0.0.1"


def command(
    run: Annotated[
        Path, typer.Argument(help="Directory of a run; with --all the folder of runs", metavar="RUN")
    ] = Path("runs"),
    all: Annotated[bool, typer.Option("--all", help="RUN is a folder of runs: show each of them")] = False,
    port: Annotated[int, typer.Option(help="Where to serve on 127.0.0.1; 0: any free port", min=0, max=65535)] = 8765,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File that holds the token, made if it is missing, as Prometheus wants; left out: a new one"),
    ] = None,
) -> None:
    """Serve a live page of a run: curves, clients, alerts, and buttons that ask before they do anything."""
    from fedloom.dashboard.extra import require_web

    require_web()
    from uvicorn import Config, Server

    from fedloom.dashboard.app import make_app
    from fedloom.dashboard.watch import Watches

    watches = Watches(run.resolve(), all_below=all)
    with bound(port) as taken:
        port, token = taken.getsockname()[1], token_of(token_file)
        console.print(f"Open http://{LOOPBACK}:{port}/?token={token}", soft_wrap=True)
        console.print("Whoever has this address can ask things of the run. Ctrl-C ends the page, never the run.")
        # No access log: it would hold the token.
        config = Config(
            make_app(watches, token, port), log_level="critical", access_log=False, timeout_graceful_shutdown=1
        )
        Server(config).run(sockets=[taken])


def token_of(path: Path | None) -> str:
    """The token in a file that only its owner reads, or a new one, which is written there if a file is named.

    Raises: RunError for a file that others can read, that holds no token, or cannot be written.
    """
    token = secrets.token_urlsafe(32)
    if path is None:
        return token
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _token_in(path)
    except OSError as error:
        raise RunError("the token cannot be written", where=path, found=error.strerror) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(token)
    return token


def _token_in(path: Path) -> str:
    try:
        token, mode = path.read_text().strip(), path.stat().st_mode
    except (OSError, ValueError) as error:
        raise RunError("the token cannot be read", where=path, found=str(error)) from error
    if mode & 0o077:
        raise RunError("others can read the token", where=path, do=f"chmod 600 {path}")
    if len(token) < 32:
        do = "Remove the file: a token is made then"
        raise RunError("this is no token", where=path, expected="32 characters or more", found=len(token), do=do)
    return token


def bound(port: int) -> socket.socket:
    """A socket on loopback. Raises: RunError if the port is taken."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((LOOPBACK, port))
    except OSError as error:
        found.close()
        where, do = f"{LOOPBACK}:{port}", "Choose another one with --port, or --port 0 for any"
        raise RunError("the port cannot be used", where=where, found=error.strerror, do=do) from error
    return found
