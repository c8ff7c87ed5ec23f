"""fedloom provision: keys, certificates and a kit for the server and for each site."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from fedloom.cli.console import Config, console
from fedloom.spec.load import load

if TYPE_CHECKING:
    from fedloom.kits.provision import Provisioned

NAME = "provision"


def command(
    config: Config,
    out: Annotated[Path, typer.Option(help="New folder for all kits")] = Path("kits"),
    server: Annotated[
        str | None,
        typer.Option(help="Where the sites reach the server; left out: 127.0.0.1:8000", metavar="HOST:PORT"),
    ] = None,
    days: Annotated[int, typer.Option(help="After so many days the kits expire")] = 365,
    add: Annotated[
        bool, typer.Option("--add", help="Add the clients that have no kit yet to the kits in --out")
    ] = False,
) -> None:
    """Make certificates, keys and a kit for the server and for each site, for a run across machines."""
    from fedloom.kits.add import add_clients
    from fedloom.kits.provision import DEFAULT_SERVER, provision

    experiment = load(config, data_at_sites=True)
    if add:
        made = add_clients(experiment, out, server, days)
    else:
        made = provision(experiment, out, server or DEFAULT_SERVER, days)
    console.print(_table(made))
    if experiment.data.source is not None:
        console.print("[data] source is not in the kits: across machines, each site trains on rows of its own.")
    _show_next(made)


def _table(made: Provisioned) -> Table:
    # Folded, as a fingerprint that is cut off could not be compared.
    kit, key = Column("kit", overflow="fold"), Column("fingerprint of its key", overflow="fold")
    table = Table("client", "rank", kit, key, "expires")
    for name, client in made.clients.items():
        table.add_row(
            name, str(client.rank), str(made.client_kit(name)), client.fingerprint, f"{client.expires:%Y-%m-%d}"
        )
    return table


def _show_next(made: Provisioned) -> None:
    lines = [
        f"The server ({made.address}): fedloom serve {made.server}",
        "Each site gets its own kit over a way that you trust, and compares the fingerprint. Then, there:",
        *(f"  fedloom join {made.client_kit(name)} --data our.jsonl" for name in made.clients),
    ]
    for line in lines:
        console.print(line, soft_wrap=True)
