"""fedloom run: run a configuration from its beginning."""

from __future__ import annotations

from pathlib import Path

from fedloom.cli.console import Config, Root
from fedloom.cli.live import live_view
from fedloom.cli.outcome import show_outcome
from fedloom.spec.load import load

NAME = "run"


def command(config: Config, root: Root = Path("runs")) -> None:
    """Run a configuration: rounds, evaluation, report and adapter, in runs/<name>."""
    experiment = load(config)
    with live_view() as observe:
        from fedloom.engine.run import run

        result = run(experiment, root=root, observe=observe)
    show_outcome(result)
