"""fedloom run: run a configuration from its beginning."""

from __future__ import annotations

from pathlib import Path

from fedloom.cli.console import Config, Root
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

NAME = "run"


def command(
    config: Config,
    root: Root = Path("runs"),
    engine: Engine = EngineName.LOCAL,
    kit: Kit = KIT,
    parallel: Parallel = PARALLEL,
    come: Come = COME,
    deadline: Deadline = DEADLINE,
) -> None:
    """Run a configuration: rounds, evaluation, report and adapter, in runs/<name>."""
    experiment = load(config, data_at_sites=engine is EngineName.FLOWER)
    if engine is EngineName.LOCAL:
        with live_view() as observe:
            from fedloom.engine.run import run

            result = run(experiment, root=root, observe=observe)
        show_outcome(result)
        return
    run_on_flower(
        engine,
        experiment,
        root=root,
        kit=kit,
        parallel=parallel,
        come=come,
        deadline=deadline,
        resume=False,
    )
