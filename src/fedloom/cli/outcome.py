"""What is printed when a run has ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedloom.cli.console import console
from fedloom.report.summary import RunSummary, summarise
from fedloom.report.tables import closing
from fedloom.store.in_force import in_force
from fedloom.store.run_directory import RunDirectory

if TYPE_CHECKING:
    from fedloom.engine.run import Result


def show_tables(summary: RunSummary) -> None:
    """Held-out results, then ranks and bytes, then the question answered before and after."""
    console.print(closing(summary))


def show_run(path: Path) -> None:
    """The same of a run that another process has made."""
    directory = RunDirectory.open(path)
    records = directory.journal.records()
    show_tables(summarise(directory.experiment(), records))
    console.print(f"{'Run directory:':15}{path}", soft_wrap=True)
    for record in in_force(records):
        if record["kind"] == "left_out":
            console.print(f"left out: the {record['what']}; {record['reason']}", soft_wrap=True)
        if record["kind"] == "run_finished":
            console.print(f"{'Digest:':15}{record['digest']}", soft_wrap=True)


def show_outcome(result: Result) -> None:
    """The tables, and where everything is."""
    show_tables(result.summary)
    adapter = result.directory / "adapter"
    places: dict[str, Path] = {"Run directory": result.directory, "Report": result.directory / "report.html"}
    personal = result.summary.personal
    if result.models or not personal:
        places |= {"PEFT adapters": adapter / "CLIENT"} if personal else {"PEFT adapter": adapter}
    for label, path in places.items():
        console.print(f"{label + ':':15}{path}", soft_wrap=True)
    if personal:
        whose = ", ".join(result.models) or "all at their sites"
        console.print(f"{'':15}one for each client, there is no global model: {whose}", soft_wrap=True)
    console.print(f"{'Digest:':15}{result.digest}", soft_wrap=True)
