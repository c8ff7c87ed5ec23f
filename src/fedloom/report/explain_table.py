"""Token by token and layer by layer, in the terminal: figures on shaded ground, in as many columns as fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fedloom.evaluation.shares import TokenShares, means
from fedloom.report.shading import Shading, percent, shading_of, visible
from fedloom.report.units import plural

MOST_TOKENS = 48
TOKEN_LETTERS = 14
CELL = 4  # letters of a figure and of "mean"; the names of merged columns may be longer
MEAN = "mean"


def shares_table(found: TokenShares, width: int) -> Group:
    """A row for each token, a column for each block of layers, or for several neighbours where they are too many.

    width: letters of a line.
    """
    columns = in_columns(found.by_block, width - TOKEN_LETTERS, more=1)
    shading = shading_of(share for column in columns.values() for share in column)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("token", no_wrap=True, width=TOKEN_LETTERS)
    for name in (*columns, MEAN):
        table.add_column(name, justify="right", no_wrap=True, min_width=max(CELL, *map(len, columns)))
    rows = list(zip(*columns.values(), found.by_token, strict=True))
    for token, row in list(zip(found.tokens, rows, strict=True))[:MOST_TOKENS]:
        table.add_row(Text(_cut(visible(token))), *(_cell(share, shading) for share in row))
    table.add_section()
    table.add_row("all tokens", *(_cell(share, shading) for share in means(rows)))
    return Group(Text(_title(found), style="bold"), table, *(Text(f"  {line}") for line in _said(found)))


def in_columns(by_block: Mapping[str, Sequence[float]], width: int, *, more: int = 0) -> dict[str, list[float]]:
    """Short names of blocks -> their shares; neighbours are merged into their mean until all fit into the width.

    more: columns that must fit besides.
    """
    names = list(short_names(by_block).values())
    rows, together = list(by_block.values()), 1
    while True:
        groups = [slice(first, first + together) for first in range(0, len(rows), together)]
        labels = [_label(names[group]) for group in groups]
        if together >= len(rows) or (len(labels) + more) * (1 + max(CELL, *map(len, labels))) <= width:
            return {label: means(rows[group]) for label, group in zip(labels, groups, strict=True)}
        together = max(together + 1, ceil(len(rows) * CELL / max(width, CELL)))


def short_names(blocks: Mapping[str, object]) -> dict[str, str]:
    """block -> its number; its whole name where it has none, or another block has the same."""
    numbers = {block: block.rpartition(".")[2] for block in blocks}
    unique = len(set(numbers.values())) == len(numbers)
    return {block: number if unique and number.isdigit() else block for block, number in numbers.items()}


def _label(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]}-{names[-1]}"


def _cell(share: float, shading: Shading) -> Text:
    return Text(f" {percent(share):>3}", style=f"black on {shading.on_white(share)}")


def _cut(token: str) -> str:
    return token if len(token) <= TOKEN_LETTERS - 1 else token[: TOKEN_LETTERS - 2] + "…"


def _title(found: TokenShares) -> str:
    return f"Share of the rest of the world at {found.client}, %, by layer (round {found.round})"


def _said(found: TokenShares) -> list[str]:
    left = len(found.tokens) - MOST_TOKENS
    said = [found.chosen] if found.chosen else []
    said += ["above 50 (blue): the others' adapter outweighs the client's own; below (orange): its own does"]
    return said + ([f"{plural(left, 'further token')}: in the picture"] if left > 0 else [])
