"""fedloom versions: what was promoted, where it comes from, and whether it is still as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.console import Root, console
from fedloom.errors import RunError
from fedloom.report.versions import lineage, verified_table, versions_table
from fedloom.store.registry import Registry, Version

NAME = "versions"


def command(
    name: Annotated[str | None, typer.Argument(help="Of these versions; left out: of all", metavar="[NAME]")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every file with its digest")] = False,
    root: Root = Path("runs"),
) -> None:
    """List promoted models: run, round, digests, and what had the name before."""
    if not root.is_dir():
        do = "Name the folder of runs with --root"
        raise RunError("there is no such folder", where=root, expected="the folder that holds runs", do=do)
    registry = Registry(root)
    versions = registry.versions(name)
    if not versions:
        console.print(f"Nothing was promoted in {root}: fedloom promote RUN --as NAME", soft_wrap=True)
        return
    if not verify:
        console.print(versions_table(versions))
        for line in [line for version in versions if name is not None for line in _lines(version, root)]:
            console.print(line, soft_wrap=True)
        return
    found = [registry.verify(version) for version in versions]
    console.print(verified_table(found))
    damaged = [one.version.label for one in found if one.problems]
    if damaged:
        do = "Promote the round again, or put the files back from a copy"
        raise RunError("versions are not as they were promoted", where=root, found=", ".join(damaged), do=do)


def _lines(version: Version, root: Path) -> list[str]:
    """What it was made of, and which runs its run continues, where that is still there."""
    from fedloom.engine.lineage import lineage_of

    before = [
        f"  continues {one.run}, round {one.round} ({one.digest[:12]})" for one in lineage_of(root / version.origin.run)
    ]
    return [*lineage(version), *before]
