"""fedloom demo: the main job on the embedded model and data, from nothing."""

from __future__ import annotations

from pathlib import Path

from fedloom.cli.console import Root, console
from fedloom.cli.live import live_view
from fedloom.cli.outcome import show_outcome
from fedloom.spec.load import parse
from fedloom.spec.template import template
from fedloom.store.names import free_name

NAME = "demo"


def command(root: Root = Path("runs")) -> None:
    """Federate SmolLM2-135M over four clients of unequal rank, each with the docstrings of other Python libraries."""
    experiment = parse(template(), where="the demo's configuration", folder=Path.cwd())
    name = free_name(root, "demo")
    experiment = experiment.model_copy(
        update={"name": name, "evaluation": experiment.evaluation.model_copy(update={"baselines": True})}
    )
    console.print(
        f"Four clients, ranks {', '.join(str(client.rank) for client in experiment.clients)}; run {root / name}"
    )
    with live_view() as observe:
        from fedloom.engine.run import run

        result = run(experiment, root=root, observe=observe)
    show_outcome(result)
