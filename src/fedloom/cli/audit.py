"""fedloom audit: whether anything of a run was changed since it was written, and a bundle that proves it elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from fedloom.cli.console import Run, console
from fedloom.errors import EXIT_CODE
from fedloom.report.units import plural

if TYPE_CHECKING:
    from fedloom.store.audit.findings import FileAudit

NAME = "audit"
INTACT = "Nothing was changed since it was written, as far as digests tell."
NOT_PROVEN = (
    "What no digest tells: whole lines cut off the end of the journal, and a journal that somebody wrote anew from its "
    "first line to its last. Both change the head: write it down elsewhere, and give it to --expect later."
)


def command(
    run: Run,
    export: Annotated[
        Path | None, typer.Option(help="Also write a bundle for an auditor: a new folder, or a file that ends in .zip")
    ] = None,
    with_weights: Annotated[
        bool, typer.Option("--with-weights", help="Put each round's state into the bundle too, adapters and all")
    ] = False,
    expect: Annotated[
        str | None, typer.Option(help="The head that was written down: the journal must end in it, or go on from it")
    ] = None,
    ledgers: Annotated[
        Path | None, typer.Option(help="Folder with the sites' privacy ledgers, CLIENT/ledger.jsonl each")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables")] = False,
) -> None:
    """Verify every digest of a run: journal, configuration, rounds, adapter, privacy ledgers; exit code 2 names damage.

    Not fedloom audit-privacy, which attacks the model to see what it gives away of its rows.
    """
    from fedloom.errors import RunError
    from fedloom.export.bundle import export_bundle
    from fedloom.store.audit.run import audit_files

    if with_weights and export is None:
        raise RunError("there is no bundle to put weights into", where="--with-weights", do="Name one with --export")
    found = audit_files(run, ledgers=ledgers, expect=expect)
    names = [] if export is None else export_bundle(run, export, ledgers=ledgers, weights=with_weights)
    if as_json:
        print(json.dumps(as_values(found), indent=1))
    else:
        console.print(checks_table(found))
        for line in said(found):
            console.print(line, soft_wrap=True)
        if names:
            console.print(
                f"Wrote {len(names)} files to {export}: there, `python verify.py` verifies them", soft_wrap=True
            )
    if found.damage:
        raise typer.Exit(EXIT_CODE)


def as_values(found: FileAudit) -> dict[str, Any]:
    """For --json."""
    checks = [{**asdict(check), "result": check.result} for check in found.checks]
    return {
        "run": found.run,
        "head": found.head,
        "records": found.records,
        "intact": not found.damage,
        "checks": checks,
    }


def checks_table(found: FileAudit) -> Table:
    """A line for each thing that was checked."""
    table = Table(title=f"What was checked of {found.run}")
    for head in ("what", "against", "how much", "result"):
        table.add_column(head)
    for check in found.checks:
        reason = f": {check.unchecked}" if check.result == "not checked" else ""
        table.add_row(*map(Text, (check.what, check.against, check.counted, check.result + reason)))
    return table


def said(found: FileAudit) -> Iterator[str]:
    """All damage, or that there is none; the head, and what is not proven."""
    for number, one in enumerate(found.damage, 1):
        yield f"{number}. {one}"
    yield f"CHANGED: {plural(len(found.damage), 'thing')} not as written" if found.damage else INTACT
    yield f"Head of the journal (record {found.records}), to be written down: {found.head}"
    if found.stands is not None:
        after = "it is the head" if found.stands == 0 else f"{plural(found.stands, 'record')} came after it"
        yield f"The digest that was expected is there; {after}."
    yield "Not covered, as the journal has no digest of them: report.html, plan.json, audit.json and other pages."
    if found.stands is None:
        yield NOT_PROVEN
