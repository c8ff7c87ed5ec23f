"""fedloom inspect: how different the clients are, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from fedloom.cli.console import Config, console
from fedloom.errors import RunError
from fedloom.spec.load import load

if TYPE_CHECKING:
    from fedloom.evaluation.heterogeneity import Comparison
    from fedloom.spec.experiment import Experiment

NAME = "inspect"
COLUMNS = 12  # clients up to which the terminal shows all distances


def command(
    config: Config,
    epsilon: Annotated[
        float | None,
        typer.Option(help="Noise on all counts, for single rows; left out: 1 with [privacy] unit example, else none"),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with a heat map to this file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables")] = False,
) -> None:
    """Show how different the clients' rows are, by counts alone, and which method and rank that suggests.

    Reads the rows of all clients on this machine; what is compared are only the counts that each would send.
    """
    from fedloom.engine.inspect import inspect
    from fedloom.report import inspect as report

    if html is not None:
        _require_page(html)
    experiment = load(config)
    with console.status("reading rows"):
        found = inspect(experiment, epsilon=epsilon)
    privacy = noise_text(experiment, found)
    if html is not None:
        _write(html, report.inspection_page(experiment.name, found, privacy))
    if as_json:
        print(json.dumps({**report.as_values(found), "privacy": privacy}, indent=1))
        return
    _print(found, privacy)
    if html is not None:
        console.print(f"  page: {html}", soft_wrap=True)


def _require_page(path: Path) -> None:
    """Raises: RunError for a name that the configuration or rows could have: they would be overwritten."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise RunError("this is no page", where="--html", expected="a name that ends in .html", found=repr(str(path)))


def noise_text(experiment: Experiment, found: Comparison) -> str:
    """What protects the rows in these figures, and what nothing protects."""
    used, unit = found.portraits[0].epsilon, experiment.privacy.unit
    if used is not None:
        return (
            f"Noise: epsilon {used:g} for each row at its client, on all counts together (discrete Laplace). It is "
            "spent on top of what a run promises, and again at each inspection; no ledger has it. Rows in common were "
            "not looked for, as no noise hides a fingerprint. Names of classes count as public"
        )
    if unit == "client":
        return (
            "No noise: [privacy] unit is client, and these counts are of single clients, which only the server may "
            "see, as it sees their contributions. The promise does not cover them: pass none on, or give --epsilon"
        )
    return (
        "No noise, as [privacy] unit is none: counts are as they are, and salted fingerprints of all rows were "
        "compared. Whoever has the salt, drawn anew each time, can try out whether a row that he guesses is there"
    )


def _print(found: Comparison, privacy: str) -> None:
    from fedloom.evaluation.advice import advice, warnings
    from fedloom.report import inspect as report

    console.print(_table("Clients, by what each would send", report.ROWS_HEADS, report.client_rows(found), texts=2))
    if 1 < len(found.clients) <= COLUMNS:
        rows = report.distance_rows(found)
        console.print(_table("Distances between clients, 0 to 1", ("client", *found.clients), rows, texts=1))
    for (one, other), both in (found.shared or {}).items():
        console.print(f"  rows in common: {one} and {other}, {both}", soft_wrap=True)
    console.print(report.score_text(found), soft_wrap=True)
    console.print(privacy, soft_wrap=True)
    for line in warnings(found):
        console.print(f"  look at: {line}", soft_wrap=True)
    for line in advice(found):
        console.print(f"  {line}", soft_wrap=True)


def _table(title: str, heads: tuple[str, ...], rows: list[list[str]], *, texts: int) -> Table:
    table = Table(title=title)
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place < texts else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _write(path: Path, page: str) -> None:
    from fedloom.store.durable import cannot_write
    from fedloom.store.unfinished import replace_file

    data = page.encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(
            error, path, needed_bytes=len(data), intact="Nothing was changed", again="inspect again"
        ) from error
    replace_file(path, data, intact="Nothing was changed", again="inspect again")
