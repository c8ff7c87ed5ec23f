"""fedloom diff: what changed between two rounds of a run."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fedloom.cli.console import Run, console
from fedloom.errors import RunError

NAME = "diff"


def command(
    run: Run,
    earlier: Annotated[int, typer.Argument(help="Committed round")],
    later: Annotated[int, typer.Argument(help="Committed round")],
    client: Annotated[
        str | None, typer.Option(help="Where each client has its own model: whose modules to show")
    ] = None,
    modules: Annotated[int, typer.Option(min=0, help="Modules to show, of those that moved most; 0: all")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="All of it, as JSON")] = False,
) -> None:
    """Compare the models after two rounds, module by module, and what was measured of them."""
    from fedloom.engine.difference import GLOBAL, difference
    from fedloom.report.difference import both_scores_table, clients_table, modules_table

    found = difference(run, earlier, later)
    if client is not None and client not in found.models:
        names = ", ".join(found.models)
        raise RunError("no model of this client is compared", where=run, expected=names, found=repr(client))
    if as_json:
        typer.echo(json.dumps(found.as_table(), indent=1))
        return
    title = f"Rounds {earlier} and {later}"
    whose = client or (GLOBAL if GLOBAL in found.models else None)
    if whose is None:
        console.print(clients_table(found.models, f"{title}: each client's own model"))
    else:
        console.print(modules_table(found.models[whose], f"{title}: {whose}", modules))
    console.print(both_scores_table(found.before, found.after, found.score, "Held-out rows"))
    for name, why in found.absent.items():
        console.print(f"  not compared: {name}, as {why}", soft_wrap=True)
    for round, stage in ((earlier, found.before), (later, found.after)):
        if not stage.clients:
            console.print(f"  round {round} was not measured: fedloom evaluate {run} --round {round}", soft_wrap=True)
