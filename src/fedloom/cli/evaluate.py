"""fedloom evaluate: measure a committed round on the held-out rows."""

from __future__ import annotations

from typing import Annotated

import typer

from fedloom.cli.console import Run, console
from fedloom.report.tables import scores_table

NAME = "evaluate"


def command(
    run: Run,
    round: Annotated[int | None, typer.Option(help="Committed round; left out: the last one")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Held-out rows per client; left out: as configured")] = None,
    generate: Annotated[int, typer.Option(min=0, help="Held-out rows per client to answer, for ROUGE")] = 16,
) -> None:
    """Measure a run on every client's held-out rows, and pooled: the global model, or each client's own."""
    from fedloom.engine.finished import evaluate_again

    with console.status("evaluating"):
        measured = evaluate_again(run, round=round, rows=rows, generate=generate)
    console.print(scores_table({name: one.metrics for name, one in measured.by_client.items()}))
    if measured.note:
        console.print(f"  {measured.note}")
