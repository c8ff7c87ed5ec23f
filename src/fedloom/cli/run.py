"""fedloom run: run a configuration from its beginning."""

from __future__ import annotations

from pathlib import Path

from fedloom.cli import engines
from fedloom.cli.console import Config, Root
from fedloom.cli.live import live_view
from fedloom.cli.outcome import show_outcome
from fedloom.spec.load import load

NAME = "run"


def command(
    config: Config,
    root: Root = Path("runs"),
    engine: engines.Engine = engines.EngineName.LOCAL,
    kit: engines.Kit = engines.KIT,
    parallel: engines.Parallel = engines.PARALLEL,
    come: engines.Come = engines.COME,
    deadline: engines.Deadline = engines.DEADLINE,
) -> None:
    """Run a configuration: rounds, evaluation, report and adapter, in runs/<name>."""
    experiment = load(config, data_at_sites=engine is engines.EngineName.FLOWER)
    if engine is engines.EngineName.LOCAL:
        with live_view() as observe:
            from fedloom.engine.run import run

            result = run(experiment, root=root, observe=observe)
        show_outcome(result)
        return
    engines.run_on_flower(
        engine,
        experiment,
        root=root,
        kit=kit,
        parallel=parallel,
        come=come,
        deadline=deadline,
        resume=False,
    )
