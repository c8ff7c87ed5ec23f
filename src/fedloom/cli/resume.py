"""fedloom resume: go on with a run from its last committed round."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli import engines
from fedloom.cli.console import Run
from fedloom.cli.continue_run import show_forgetting
from fedloom.cli.live import live_view
from fedloom.cli.outcome import show_outcome
from fedloom.spec.load import load
from fedloom.store.run_directory import RunDirectory

NAME = "resume"


def command(
    run: Run,
    config: Annotated[Path | None, typer.Option(help="Refuse to go on unless the run has this configuration")] = None,
    engine: engines.Engine = engines.EngineName.LOCAL,
    kit: engines.Kit = engines.KIT,
    parallel: engines.Parallel = engines.PARALLEL,
    come: engines.Come = engines.COME,
    deadline: engines.Deadline = engines.DEADLINE,
) -> None:
    """Go on with a run that was interrupted, from its last committed round."""
    directory = RunDirectory.open(run)
    if config is not None:
        directory.check_same(load(config, data_at_sites=engine is engines.EngineName.FLOWER))
    if engine is engines.EngineName.LOCAL:
        with live_view() as observe:
            from fedloom.engine.run import resume

            result = resume(run, observe=observe)
        show_outcome(result)
        show_forgetting(run)
        return
    engines.run_on_flower(
        engine,
        directory.experiment(),
        root=run.parent,
        kit=kit,
        parallel=parallel,
        come=come,
        deadline=deadline,
        resume=True,
    )
