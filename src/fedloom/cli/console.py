"""What commands share: a console, and the types of their arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

# Paths, names and messages may hold square brackets: nothing that is printed is markup.
console = Console(highlight=False, markup=False)

Config = Annotated[
    Path, typer.Argument(help="Configuration file (TOML); fedloom init writes one", metavar="pilot.toml")
]
Run = Annotated[Path, typer.Argument(help="Directory of a run, such as runs/pilot", metavar="RUN")]
Root = Annotated[Path, typer.Option(help="Where run directories are kept")]
