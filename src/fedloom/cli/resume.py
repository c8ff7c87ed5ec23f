"""fedloom resume: go on with a run from its last committed round."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.console import Run
from fedloom.cli.live import live_view
from fedloom.cli.outcome import show_outcome
from fedloom.spec.load import load
from fedloom.store.run_directory import RunDirectory

NAME = "resume"


def command(
    run: Run,
    config: Annotated[Path | None, typer.Option(help="Refuse to go on unless the run has this configuration")] = None,
) -> None:
    """Go on with a run that was interrupted, from its last committed round."""
    if config is not None:
        RunDirectory.open(run).check_same(load(config))
    with live_view() as observe:
        from fedloom.engine.run import resume

        result = resume(run, observe=observe)
    show_outcome(result)
