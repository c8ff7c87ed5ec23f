"""fedloom methods: the table of methods, computed from the registry."""

from __future__ import annotations

from dataclasses import MISSING, fields

from rich.table import Table
from rich.text import Text

from fedloom.aggregation.method import Law, Method
from fedloom.aggregation.registry import METHODS
from fedloom.cli.console import console

NAME = "methods"


def command() -> None:
    """Print every method with its laws, its source, what the server sees, and its settings."""
    for method in METHODS.values():
        console.print(Text.assemble((method.name, "bold"), f"  {method.summary}"))
        console.print(f"  source: {method.source}", style="dim")
        for line in _settings(method):
            console.print(f"  {line}")
    console.print(laws_table())


def laws_table() -> Table:
    """Methods against laws: tests hold every cell to be true, the empty ones too."""
    table = Table(title="What each method guarantees", caption="✓ holds always · blank: a counterexample is known")
    table.add_column("law")
    for method in METHODS.values():
        table.add_column(method.name, justify="center")
    for law in Law:
        table.add_row(law.value, *("✓" if law in method.laws else "" for method in METHODS.values()))
    sees = {"sum": "sum", "deltas": "sketch", "individuals": "each"}
    what = "the server must see: the sum, a sketch of it, or each client's"
    table.add_row(what, *(sees[method.reveals] for method in METHODS.values()))
    return table


def _settings(method: Method) -> list[str]:
    lines = []
    for field in fields(method.settings):
        default = "" if field.default is MISSING else f" = {field.default!r}"
        lines.append(f"setting {field.name}{default}: {field.metadata['help']}")
    return lines
