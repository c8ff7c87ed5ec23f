"""fedloom promote: give the model of a round a name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.console import Run, console

NAME = "promote"


def command(
    run: Run,
    name: Annotated[str, typer.Option("--as", help="Name of the version, such as prod")],
    round: Annotated[int | None, typer.Option(help="Committed round; left out: the last one")] = None,
    client: Annotated[
        str | None, typer.Option(help="Whose model, of a method that gives each client its own (fedsa, fedalt)")
    ] = None,
) -> None:
    """Write the model of a round as the next version of a name, and where it comes from into the registry."""
    from fedloom.engine.promoting import promote
    from fedloom.store.registry import Registry

    with console.status("writing the model"):
        version = promote(run, name, round=round, client=client)
    place: Path = Registry(run.parent).place(version)
    before = "" if version.parent is None else f", after {version.parent}"
    console.print(f"{version.label} is round {version.origin.round} of {version.origin.run}{before}: {place}")
