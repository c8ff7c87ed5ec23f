"""fedloom join: a site takes part in a run across machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.console import console
from fedloom.cli.engines import require_flower

NAME = "join"


def command(
    kit: Annotated[Path, typer.Argument(help="This site's kit, of fedloom provision", metavar="KIT")],
    data: Annotated[str | None, typer.Option(help="This site's rows, in place of what site.toml says")] = None,
    state: Annotated[Path | None, typer.Option(help="Where to keep what stays here; left out: KIT/state")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Free local port for Flower's own processes")] = 9094,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent and to whom, and send nothing")
    ] = False,
) -> None:
    """Take part in a run: keep this site's worker and Flower's SuperNode running, until Ctrl-C."""
    require_flower()
    from fedloom.engine.flower.joining import Membership, join
    from fedloom.kits.read_client import read_client_kit
    from fedloom.kits.site import read_site
    from fedloom.spec.places import source_at

    found = read_client_kit(kit)
    site = read_site(found.site)
    if data is not None:
        site = site.model_copy(update={"data": source_at(data, Path.cwd())})
    if dry_run:
        from fedloom.engine.flower.rehearsal import rehearsed

        for line in rehearsed(found, site):
            console.print(line, soft_wrap=True)
        return
    membership = Membership(found, site, (state or kit / "state").absolute(), port)
    try:
        join(membership, lambda line: console.print(line, soft_wrap=True))
    except KeyboardInterrupt:
        console.print("left; join again at any time, what stays here is kept")
