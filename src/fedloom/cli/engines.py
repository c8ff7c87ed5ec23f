"""Which engine carries a run, and what the ones on Flower want to know."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedloom.cli.console import console
from fedloom.cli.live import live_view
from fedloom.cli.outcome import show_outcome, show_run
from fedloom.errors import ConfigError
from fedloom.spec.experiment import Experiment

if TYPE_CHECKING:
    from fedloom.engine.flower.host import Patience
    from fedloom.engine.kept_plan import KeptPlan


class EngineName(StrEnum):
    LOCAL = "local"
    SIMULATION = "flower-simulation"
    FLOWER = "flower"


Engine = Annotated[
    EngineName,
    typer.Option(help="local: in this process; flower-simulation: Flower's simulation (Ray); flower: real machines"),
]
Kit = Annotated[Path, typer.Option(help="flower: the server's kit, which `fedloom serve` serves")]
Parallel = Annotated[int, typer.Option(min=1, help="flower-simulation: clients that work at the same time")]
Come = Annotated[float, typer.Option(min=0, help="Flower: seconds to wait for all clients before round 1")]
Deadline = Annotated[float, typer.Option(min=1, help="Flower: seconds that clients have for a round")]

KIT, PARALLEL, COME, DEADLINE = Path("kits/server"), 1, 120.0, 3600.0


def require_flower() -> None:
    """Raises: ConfigError where Flower is not installed."""
    if find_spec("flwr") is None:
        raise ConfigError(["this needs Flower, which is not installed; pip install 'fedloom[flower]'"])


def run_on_flower(
    engine: EngineName,
    experiment: Experiment,
    *,
    root: Path,
    kit: Path,
    parallel: int,
    come: float,
    deadline: float,
    resume: bool,
) -> None:
    """Run or resume on one of Flower's engines, and show what came of it."""
    require_flower()
    from fedloom.engine.flower.host import Patience

    patience = Patience(come=come, deadline=deadline)
    experiment, kept = _planned(experiment)
    if engine is EngineName.FLOWER:
        run_across(experiment, kit, patience, resume=resume, kept=kept)
        return
    from fedloom.engine.flower.simulation import Simulated, simulate

    with live_view() as observe:
        options = Simulated(parallel, patience)
        result = simulate(experiment, root=root, observe=observe, options=options, resume=resume, kept=kept)
    show_outcome(result)


def _planned(experiment: Experiment) -> tuple[Experiment, KeptPlan | None]:
    """As of `planned_ahead`, which needs the base: it is imported only where something is left to the planner."""
    if experiment.is_planned:
        return experiment, None
    from fedloom.engine.planned import planned_ahead

    return planned_ahead(experiment)


def run_across(
    experiment: Experiment, kit: Path, patience: Patience, *, resume: bool, kept: KeptPlan | None = None
) -> None:
    """Submit to a served kit, follow, and show what came of it. Ctrl-C leaves the run going."""
    from fedloom.engine.flower.submitting import follow, served, submit

    submitted = submit(served(kit), experiment, console.print, patience=patience, resume=resume, kept=kept)
    try:
        with live_view() as observe:
            path = follow(submitted, observe)
    except KeyboardInterrupt:
        console.print(f"The run goes on at the server. See it: fedloom status {kit}. It writes {submitted.path}")
        return
    show_run(path)
