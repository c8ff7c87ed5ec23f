"""fedloom serve: the server of a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.console import Root, console
from fedloom.cli.engines import KIT, require_flower

NAME = "serve"


def command(
    kit: Annotated[Path, typer.Argument(help="The server's kit, of fedloom provision", metavar="KIT")] = KIT,
    root: Root = Path("runs"),
) -> None:
    """Serve a run until Ctrl-C: Flower's SuperLink with the kit's keys, open to its clients only."""
    require_flower()
    from fedloom.engine.flower.serving import Server, serve
    from fedloom.kits.read_server import read_server_kit

    server = Server(read_server_kit(kit), root.absolute())
    try:
        serve(server, lambda line: console.print(line, soft_wrap=True))
    except KeyboardInterrupt:
        console.print("the server has ended; start it again at any time, nothing is lost")
