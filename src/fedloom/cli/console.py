"""What commands share: a console, and the types of their arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fedloom.errors import RunError

# Paths, names and messages may hold square brackets: nothing that is printed is markup.
console = Console(highlight=False, markup=False)

Config = Annotated[
    Path, typer.Argument(help="Configuration file (TOML); fedloom init writes one", metavar="pilot.toml")
]
Run = Annotated[Path, typer.Argument(help="Directory of a run, such as runs/pilot", metavar="RUN")]
RunOrKit = Annotated[
    Path,
    typer.Argument(
        help="Directory of a run, such as runs/pilot; at a site its kit (or what it joined with as --state)",
        metavar="RUN|KIT",
    ),
]
Root = Annotated[Path, typer.Option(help="Where run directories are kept")]


def refuse_round(path: Path, round: int | None) -> None:
    """Of a site's own model there is only the last. Raises: RunError where a round is named."""
    if round is not None:
        raise RunError(
            "a site keeps its model as the run measured it last",
            where=path,
            found=f"--round {round}",
            do="Leave out --round",
        )
