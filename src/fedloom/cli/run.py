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
    require_flower,
    run_across,
    run_simulated,
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
    require_flower()
    from fedloom.engine.flower.host import Patience

    patience = Patience(come=come, deadline=deadline)
    if engine is EngineName.SIMULATION:
        run_simulated(experiment, root, parallel, patience, resume=False)
    else:
        run_across(experiment, kit, patience, resume=False)
