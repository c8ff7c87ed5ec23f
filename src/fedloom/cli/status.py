"""fedloom status: who is there, and how far the run is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedloom.cli.console import console
from fedloom.cli.engines import KIT, require_flower

NAME = "status"


def command(
    kit: Annotated[Path, typer.Argument(help="The server's kit that is being served", metavar="KIT")] = KIT,
) -> None:
    """Show a served kit: which clients are there, what each did last, the round, and the time left."""
    require_flower()
    from fedloom.engine.flower.standing import standing
    from fedloom.engine.flower.submitting import served

    found = standing(served(kit))
    table = Table("client", "node", "last", "round", "when")
    for client in found.clients:
        table.add_row(client.name, client.node, client.last, client.round, client.when)
    console.print(table)
    for line in _lines(found.runs, found.round, found.rounds, found.seconds_left):
        console.print(line, soft_wrap=True)


def _lines(runs: Iterable[Mapping[str, Any]], round: int, rounds: int, seconds_left: float | None) -> Iterable[str]:
    for run in list(runs)[:3]:
        yield f"Flower's run {run['run-id']}: {run['status']}, {run['elapsed']}"
    if rounds:
        left = "" if not seconds_left else f", about {time.strftime('%H:%M:%S', time.gmtime(seconds_left))} left"
        yield f"Round {round} of {rounds} is committed{left}"
