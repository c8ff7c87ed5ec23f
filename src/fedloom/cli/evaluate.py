"""fedloom evaluate: measure a committed round on the held-out rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.console import Run, console
from fedloom.errors import ConfigError
from fedloom.report.tables import scores_table

NAME = "evaluate"
AGAINST = "fedit,loom"


def command(
    run: Run,
    round: Annotated[int | None, typer.Option(help="Committed round; left out: the last one")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Held-out rows per client; left out: as configured")] = None,
    generate: Annotated[int, typer.Option(min=0, help="Held-out rows per client to answer, for ROUGE")] = 16,
    per_client: Annotated[
        bool,
        typer.Option(
            "--per-client", help="Each client's own model beside training alone and shared models, which it trains"
        ),
    ] = False,
    against: Annotated[
        str, typer.Option(help="With --per-client: methods to compare with, comma-separated; empty for none")
    ] = AGAINST,
    harness: Annotated[
        str | None,
        typer.Option(help="Instead: tasks of EleutherAI's lm-eval, comma-separated, before and after tuning"),
    ] = None,
    tasks_dir: Annotated[Path | None, typer.Option(help="With --harness: a folder of task YAML files of yours")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="With --harness: rows of each task; left out: all")] = None,
    client: Annotated[
        str | None, typer.Option(help="With --harness: whose model, where each client has its own")
    ] = None,
) -> None:
    """Measure a run on every client's held-out rows, and pooled: the global model, or each client's own."""
    if harness is not None:
        from fedloom.cli.harness import show_harness

        show_harness(run, harness, tasks_dir=tasks_dir, limit=limit, round=round, client=client)
        return
    if tasks_dir or limit or client:
        raise ConfigError(["--tasks-dir, --limit and --client only mean something with --harness"])
    if per_client:
        _per_client(run, against)
        return
    from fedloom.engine.finished import evaluate_again

    with console.status("evaluating"):
        measured = evaluate_again(run, round=round, rows=rows, generate=generate)
    console.print(scores_table({name: one.metrics for name, one in measured.by_client.items()}))
    if measured.note:
        console.print(f"  {measured.note}", markup=False)


def _per_client(run: Path, against: str) -> None:
    from fedloom.cli.live import live_view
    from fedloom.engine.per_client import borrowed, per_client
    from fedloom.report.per_client import borrowed_words, per_client_tables, per_client_words

    names = [name.strip() for name in against.split(",") if name.strip()]
    with live_view() as observe:
        found = per_client(run, names, observe=observe)
    for table in per_client_tables(found):
        console.print(table)
    for sentence in [*per_client_words(found), *borrowed_words(borrowed(run))]:
        console.print(sentence, highlight=False)
