"""fedloom init: write a commented configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.console import console
from fedloom.errors import ConfigError
from fedloom.spec.template import template

NAME = "init"


def command(
    path: Annotated[Path, typer.Argument(help="File to write", metavar="pilot.toml")] = Path("pilot.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists")] = False,
) -> None:
    """Write a commented configuration that runs as it is, on the embedded model and data."""
    if path.exists() and not force:
        raise ConfigError(["the file exists already; choose another name, or --force to replace it"], where=path)
    try:
        path.write_text(template(), encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"the file cannot be written: {error.strerror}"], where=path) from error
    console.print(f"Wrote {path}. Next: fedloom check {path}, then fedloom run {path}")
