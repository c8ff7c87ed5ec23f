"""fedloom report: make the HTML report of a run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedloom.cli.console import Run, console

NAME = "report"


class Lang(StrEnum):
    """Languages of a report; a test holds them to the catalogues."""

    EN = "en"
    JA = "ja"


Lang_ = Annotated[Lang, typer.Option(help="Language: en writes report.html, ja report.ja.html")]
PricesFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="TOML file with a table [prices], for energy and money")
]


def command(run: Run, lang: Lang_ = Lang.EN, prices: PricesFile = None) -> None:
    """Write the report of a run, finished or in progress, and print its tables."""
    from fedloom.cli.outcome import show_tables
    from fedloom.report.lang.languages import LANGUAGES
    from fedloom.report.write import report_path, write_report
    from fedloom.spec.prices import load_prices
    from fedloom.store.run_directory import RunDirectory

    directory, language = RunDirectory.open(run), LANGUAGES[lang]
    clients = [client.name for client in directory.experiment().clients]
    given = None if prices is None else load_prices(prices, clients)
    show_tables(write_report(directory, language, given))
    console.print(f"Report: {report_path(directory, language)}", soft_wrap=True)
