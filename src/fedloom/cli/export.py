"""fedloom export: take the tuned model out of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedloom.cli.console import Run, console
from fedloom.report.units import change_text, loss_text, plural

if TYPE_CHECKING:
    from fedloom.engine.personal import TakenHome

NAME = "export"


def command(
    run: Run,
    to: Annotated[
        Path | None, typer.Option(help="Directory to write; left out: RUN/export, or RUN/export/CLIENT")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="The whole model with the delta merged in")] = False,
    client: Annotated[
        str | None, typer.Option(help="Whose model, of a method that gives each client its own (fedsa, fedalt)")
    ] = None,
    round: Annotated[int | None, typer.Option(help="Committed round; left out: the last one")] = None,
) -> None:
    """Write a PEFT adapter (or, with --merge, a whole model) that plain transformers and PEFT load.

    Of a method that mixes two adapters at each client: both, their mixer, and the closest adapter without one.
    """
    from fedloom.engine.finished import load_finished
    from fedloom.engine.personal import take_home
    from fedloom.export.peft import export_merged, export_peft, refuse_filled

    to = to or run / "export" / (client or "")
    refuse_filled(to)
    finished = load_finished(run, round=round)
    own = finished.own(client) if finished.method.personal else None
    kind = ("merged model" if merge else "PEFT adapter") + ("" if client is None else f" of client {client}")
    taken = None
    if own is not None and own.mixing is not None and client is not None:
        with console.status("reading the client's rows, and what merging costs on them"):
            taken = take_home(run, finished, client, own, to, merge=merge)
        kind = kind if merge else f"personal model of client {client}"
    else:
        write = export_merged if merge else export_peft
        write(to, finished.adapter(client) if own is None else own.delta(), finished.state.head, finished.base)
    console.print(f"Wrote the {kind} of round {finished.state.round} to {to}", soft_wrap=True)
    for line in [] if taken is None else _said(taken, client, merge):
        console.print(f"  {line}", soft_wrap=True)


def _said(taken: TakenHome, client: str | None, merge: bool) -> list[str]:
    """What merging costs, or why nobody knows."""
    found = taken.merging
    if found is None:
        left_out = "" if merge else "; where shares are learned there is no merged adapter either"
        return [f"What merging costs is not known, as the client's rows cannot be read here: {taken.lacking}{left_out}"]
    own, merged = found.personal["loss"], found.merged["loss"]
    said = [
        f"On {plural(found.rows, 'held-out row')} of {client}: loss {loss_text(own)} of its own model, "
        f"{loss_text(merged)} of the closest static mixture, as in merged ({change_text(own, merged)})"
    ]
    if "accuracy" in found.personal:
        before, after = (100 * each["accuracy"] for each in (found.personal, found.merged))
        said.append(f"Accuracy on them: {before:.1f}% and {after:.1f}%")
    return said
