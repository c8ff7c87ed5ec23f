"""What fedloom evaluate --harness shows: the base before and the tuned model after, on tasks of lm-eval."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from fedloom.cli.console import console


def show_harness(
    run: Path, names: str, *, tasks_dir: Path | None, limit: int | None, round: int | None, client: str | None
) -> None:
    """names: of tasks, separated by commas."""
    from fedloom.engine.harness import harness

    tasks = [name.strip() for name in names.split(",") if name.strip()]
    with console.status("measuring base and tuned model with lm-eval"):
        scores = harness(run, tasks, tasks_dir=tasks_dir, limit=limit, round=round, client=client)
    table = Table("task", "metric", "base", "tuned", "change", "standard error")
    for score in scores:
        error = "" if score.error is None else f"{score.error:.4f}"
        change = f"{score.tuned - score.base:+.4f}"
        table.add_row(score.task, score.metric, f"{score.base:.4f}", f"{score.tuned:.4f}", change, error)
    console.print(table)
    if limit is not None:
        console.print(f"  of the first {limit} rows of each task only", markup=False)
