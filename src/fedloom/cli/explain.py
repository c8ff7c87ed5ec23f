"""fedloom explain: how much of the rest of the world a client's model uses for a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.console import RunOrKit, console, refuse_round
from fedloom.errors import RunError

NAME = "explain"


def command(
    run: RunOrKit,
    text: Annotated[str, typer.Option("--input", help="A question, or a text to classify")],
    client: Annotated[str | None, typer.Option(help="Whose model; at a site left out: its own")] = None,
    round: Annotated[int | None, typer.Option(help="Committed round; left out: the last one")] = None,
) -> None:
    """Show, for each token and layer, how much of the others' adapter a client's mixers use beside its own (fedalt).

    Writes the same as a picture to RUN/explain/CLIENT.html, or below KIT.
    """
    from fedloom.engine.at_site import is_of_a_site, load_at_site
    from fedloom.engine.explaining import explain, explain_model
    from fedloom.report.explain_table import shares_table
    from fedloom.report.write import write_explanation

    with console.status("reading the text with the client's model"):
        if is_of_a_site(run):
            refuse_round(run, round)
            found = explain_model(load_at_site(run, client), text, where=run)
        else:
            found = explain(run, _named(run, client), text, round=round)
    console.print(shares_table(found, console.width))
    console.print(f"  picture: {write_explanation(run, found)}", soft_wrap=True)


def _named(run: Path, client: str | None) -> str:
    if client is None:
        raise RunError("whose model?", where=run, expected="a client", found="none", do="Name one with --client")
    return client
