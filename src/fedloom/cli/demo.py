"""fedloom demo: the main job on the embedded model and data, from nothing."""

from __future__ import annotations

from pathlib import Path

from fedloom.cli.console import Root, console
from fedloom.cli.live import live_view
from fedloom.cli.outcome import show_outcome
from fedloom.spec.experiment import Experiment
from fedloom.spec.load import parse
from fedloom.spec.template import template
from fedloom.store.names import free_name

NAME = "demo"
QUESTION = "What does `shutil.copytree` do?"


def command(root: Root = Path("runs")) -> None:
    """Federate SmolLM2-135M over four clients of unequal rank, each with the docstrings of other Python libraries."""
    experiment = demo_experiment(free_name(root, "demo"))
    ranks = ", ".join(str(client.rank) for client in experiment.clients)
    console.print(f"{len(experiment.clients)} clients, ranks {ranks}; run directory {root / experiment.name}")
    with live_view() as observe:
        from fedloom.engine.run import run

        result = run(experiment, root=root, observe=observe)
    show_outcome(result)


def demo_experiment(name: str) -> Experiment:
    """What `fedloom init` writes, on fewer rows, with the baselines and a question."""
    experiment = parse(template(), where="the demo's configuration", folder=Path.cwd())
    evaluation = {"baselines": True, "question": QUESTION, "max_rows": 40, "generate_rows": 8, "max_new_tokens": 32}
    return experiment.model_copy(
        update={
            "name": name,
            "training": experiment.training.model_copy(update={"local_steps": 6, "max_tokens": 128}),
            "data": experiment.data.model_copy(update={"max_rows": 600}),
            "evaluation": experiment.evaluation.model_copy(update=evaluation),
        }
    )
