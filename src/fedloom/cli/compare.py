"""fedloom compare: the same data, seeds and steps with several methods."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedloom.aggregation.registry import METHODS
from fedloom.cli.console import Config, Root, console
from fedloom.cli.live import live_view
from fedloom.report.recommendation import recommendation
from fedloom.report.tables import comparison_table
from fedloom.spec.load import load

NAME = "compare"


def command(
    config: Config,
    methods: Annotated[str, typer.Option(help=f"Comma-separated, of: {', '.join(METHODS)}")],
    root: Root = Path("runs"),
) -> None:
    """Run a configuration with several methods: one table, one chart, and which one to take."""
    experiment = load(config)
    names = [name.strip() for name in methods.split(",") if name.strip()]
    with live_view() as observe:
        from fedloom.engine.compare import compare

        comparison = compare(experiment, names, root=root, observe=observe)
    console.print(comparison_table(comparison.summaries, comparison.notes))
    for sentence in recommendation(comparison.summaries):
        console.print(sentence, highlight=False)
    console.print(f"Chart and table: {comparison.page}", soft_wrap=True)
