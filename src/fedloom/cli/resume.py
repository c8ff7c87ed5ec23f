"""fedloom resume: go on with a run from its last committed round."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.console import Run
from fedloom.cli.engines import (
    COME,
    DEADLINE,
    KIT,
    PARALLEL,
    Come,
    Deadline,
    Engine,
    EngineName,
    Kit,
    Parallel,
    run_on_flower,
)
from fedloom.cli.live import live_view
from fedloom.cli.outcome import show_outcome
from fedloom.spec.load import load
from fedloom.store.run_directory import RunDirectory

NAME = "resume"


def command(
    run: Run,
    config: Annotated[Path | None, typer.Option(help="Refuse to go on unless the run has this configuration")] = None,
    engine: Engine = EngineName.LOCAL,
    kit: Kit = KIT,
    parallel: Parallel = PARALLEL,
    come: Come = COME,
    deadline: Deadline = DEADLINE,
) -> None:
    """Go on with a run that was interrupted, from its last committed round."""
    directory = RunDirectory.open(run)
    if config is not None:
        directory.check_same(load(config, data_at_sites=engine is EngineName.FLOWER))
    if engine is EngineName.LOCAL:
        with live_view() as observe:
            from fedloom.engine.run import resume

            result = resume(run, observe=observe)
        show_outcome(result)
        return
    run_on_flower(
        engine,
        directory.experiment(),
        root=run.parent,
        kit=kit,
        parallel=parallel,
        come=come,
        deadline=deadline,
        resume=True,
    )
