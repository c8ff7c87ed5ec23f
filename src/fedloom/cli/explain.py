"""fedloom explain: how much of the rest of the world a client's model uses for a text."""

from __future__ import annotations

from typing import Annotated

import typer

from fedloom.cli.console import Run, console

NAME = "explain"


def command(
    run: Run,
    client: Annotated[str, typer.Option(help="Whose model")],
    text: Annotated[str, typer.Option("--input", help="A question, or a text to classify")],
    round: Annotated[int | None, typer.Option(help="Committed round; left out: the last one")] = None,
) -> None:
    """Show, for each token and layer, how much of the others' adapter a client's mixers use beside its own (fedalt).

    Writes the same as a picture to RUN/explain/CLIENT.html.
    """
    from fedloom.engine.explaining import explain
    from fedloom.report.explain_table import shares_table
    from fedloom.report.write import write_explanation

    with console.status("reading the text with the client's model"):
        found = explain(run, client, text, round=round)
    console.print(shares_table(found, console.width))
    console.print(f"  picture: {write_explanation(run, found)}", soft_wrap=True)
