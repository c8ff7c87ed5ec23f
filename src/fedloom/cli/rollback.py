"""fedloom rollback: go back to an earlier round; what came after is moved away, and nothing is deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.console import Run, console
from fedloom.cli.control import new_id
from fedloom.errors import FedLoomError
from fedloom.report.units import listed, plural
from fedloom.store.control import check
from fedloom.store.in_force import branch_of
from fedloom.store.registry import Registry
from fedloom.store.requests import ROLLBACK, Request
from fedloom.store.rollback import FOLDER
from fedloom.store.run_directory import RunDirectory

NAME = "rollback"


def command(
    run: Run,
    to: Annotated[int, typer.Option(help="The last round that stays; 0: the beginning")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    reason: Annotated[str | None, typer.Option(help="Why, for the journal")] = None,
) -> None:
    """Go back to the state after an earlier round; rounds that follow draw by other seeds."""
    from fedloom.engine.control import ask

    directory = RunDirectory.open(run)
    request = Request(new_id(), ROLLBACK, seen=max(directory.committed(), default=0), to=to, reason=reason)
    check(directory, request)
    lost = [round for round in sorted(directory.committed()) if round > to]
    promoted = _promoted(run, [directory.committed()[round] for round in lost])
    if not yes:
        typer.confirm(f"Move {_rounds(lost)} of {run} away?", abort=True)
    if not ask(run, request):
        console.print(f"Asked: the run goes back to round {to} when the round that it is in is committed")
    else:
        console.print(f"The run is after round {to} again: fedloom resume {run} goes on", soft_wrap=True)
        place = run / FOLDER / str(branch_of(directory.journal.records()))
        console.print(f"{_rounds(lost)}, and what was made of the last one, are in {place}", soft_wrap=True)
    if (run / "export").exists():
        console.print(f"{run / 'export'} stays: look whether it is of a round that is gone", soft_wrap=True)
    for line in promoted:
        console.print(line, soft_wrap=True)


def _rounds(lost: list[int]) -> str:
    return f"{plural(len(lost), 'round')} ({listed([str(round) for round in lost])})"


def _promoted(run: Path, checkpoints: list[str]) -> list[str]:
    """What to say of promoted versions that are of these rounds; a registry that is damaged is in nobody's way."""
    try:
        versions = Registry(run.resolve().parent).versions()
    except FedLoomError as error:
        return [f"Whether a version was promoted is not known: {error}"]
    labels = [version.label for version in versions if version.origin.checkpoint in checkpoints]
    return [f"{label} is of a round that was moved; the version itself stays as it is" for label in labels]
