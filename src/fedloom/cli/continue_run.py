"""fedloom continue: go on from a finished run with other rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.console import Run, console
from fedloom.cli.live import live_view
from fedloom.cli.outcome import show_outcome

NAME = "continue"


def command(
    run: Run,
    data: Annotated[
        Path, typer.Option(help="Folder with one file per client: CLIENT.jsonl, .csv, .parquet; others take no part")
    ],
    rounds: Annotated[int | None, typer.Option(min=1, help="How many more; left out: as many as before")] = None,
    name: Annotated[str | None, typer.Option(help="Of the new run, beside the old one; left out: RUN-2")] = None,
    round: Annotated[int | None, typer.Option(help="Committed round to go on from; left out: the last one")] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="With [privacy] epsilon: the budget over both runs together")
    ] = None,
) -> None:
    """Begin a run where a finished one ended, with new rows, and measure what it forgets of the old ones."""
    with live_view() as observe:
        from fedloom.engine.continuing import continue_run

        result = continue_run(run, data, rounds=rounds, name=name, round=round, epsilon=epsilon, observe=observe)
    show_outcome(result)
    show_forgetting(result.directory)


def show_forgetting(path: Path) -> None:
    """Of a run that continues another: from where, and both hold-outs before and after."""
    from fedloom.engine.lineage import lineage_of
    from fedloom.report.forgetting import forgetting, forgetting_table
    from fedloom.store.in_force import in_force
    from fedloom.store.run_directory import RunDirectory

    parents = lineage_of(path)
    if not parents:
        return
    records = in_force(RunDirectory.open(path).journal.records())
    console.print(forgetting_table(*forgetting(records, parents[0].round)))
    for record in records:
        if record["kind"] == "left_out" and "hold-out" in record["what"]:
            console.print(f"left out: the {record['what']}; {record['reason']}", soft_wrap=True)
    line = " <- ".join(f"{parent.run} (round {parent.round})" for parent in parents)
    console.print(f"{'Continues:':15}{line}", soft_wrap=True)
