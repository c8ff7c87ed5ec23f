"""fedloom export: take the tuned model out of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.console import Run, console

NAME = "export"


def command(
    run: Run,
    to: Annotated[Path, typer.Option(help="Directory to write")],
    merge: Annotated[bool, typer.Option("--merge", help="The whole model with the delta merged in")] = False,
    client: Annotated[
        str | None, typer.Option(help="Whose model, of a method that gives each client its own (fedsa)")
    ] = None,
    round: Annotated[int | None, typer.Option(help="Committed round; left out: the last one")] = None,
) -> None:
    """Write a PEFT adapter (or, with --merge, a whole model) that plain transformers and PEFT load."""
    from fedloom.engine.finished import load_finished
    from fedloom.export.peft import export_merged, export_peft, refuse_filled

    refuse_filled(to)
    finished = load_finished(run, round=round)
    write = export_merged if merge else export_peft
    write(to, finished.adapter(client), finished.state.head, finished.base)
    kind = ("merged model" if merge else "PEFT adapter") + ("" if client is None else f" of client {client}")
    console.print(f"Wrote the {kind} of round {finished.state.round} to {to}", soft_wrap=True)
