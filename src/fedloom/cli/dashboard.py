"""fedloom dashboard: a live page of a run, or of all runs in a folder, on this machine only."""

from __future__ import annotations

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
) -> None:
    """Serve a live page of a run: curves, clients, alerts, and buttons that ask before they do anything."""
    from fedloom.dashboard.extra import require_web

    require_web()
    from uvicorn import Config, Server

    from fedloom.dashboard.app import make_app
    from fedloom.dashboard.watch import Watches

    watches = Watches(run.resolve(), all_below=all)
    with bound(port) as taken:
        port, token = taken.getsockname()[1], secrets.token_urlsafe(32)
        console.print(f"Open http://{LOOPBACK}:{port}/?token={token}", soft_wrap=True)
        console.print("Whoever has this address can ask things of the run. Ctrl-C ends the page, never the run.")
        # No access log: it would hold the token.
        config = Config(
            make_app(watches, token, port), log_level="critical", access_log=False, timeout_graceful_shutdown=1
        )
        Server(config).run(sockets=[taken])


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
