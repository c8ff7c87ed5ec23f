"""How one common source is divided among clients, for trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedloom import rng
from fedloom.data.columns import column_value
from fedloom.data.text import number_text
from fedloom.errors import DataError
from fedloom.spec.experiment import PartitionTable

MIN_ROWS = 2  # one to train on and one to hold out


def partition(
    rows: Sequence[Mapping[str, Any]], clients: Sequence[str], table: PartitionTable, seed: int
) -> dict[str, list[int]]:
    """Client -> the positions of its rows, ascending; every row goes to exactly one client.

    iid: equal shares at random.  column: each value of the column goes to the client that has least so far, the most
    frequent value first.  dirichlet: the rows of each value are cut by p ~ Dirichlet(alpha, .., alpha) over clients.
    Raises: DataError for a column that is not there, or a client that would be left with fewer than two rows.
    Source: dirichlet as in Hsu et al. (2019), section 3.1.
    """
    draw = np.random.default_rng(rng.child(seed, "partition", table.kind))
    if table.kind == "iid":
        shares = [list(map(int, share)) for share in np.array_split(draw.permutation(len(rows)), len(clients))]
    elif table.kind == "column":
        shares = _by_column(_positions(rows, table), len(clients))
    else:
        shares = _by_dirichlet(_positions(rows, table), len(clients), table.alpha, draw)
    for client, share in zip(clients, shares, strict=True):
        if len(share) < MIN_ROWS:
            raise _too_few(client, len(share), len(rows), table)
    return {client: sorted(share) for client, share in zip(clients, shares, strict=True)}


def _positions(rows: Sequence[Mapping[str, Any]], table: PartitionTable) -> list[list[int]]:
    """The positions of the rows of each value, the most frequent value first."""
    if table.column is None:
        raise DataError(f"a partition of kind {table.kind} needs a column", where="[data.partition]")
    by_value: dict[str, list[int]] = {}
    for position, row in enumerate(rows):
        value = column_value(row, table.column, f"[data.partition], row {position + 1}")
        by_value.setdefault(number_text(value) if isinstance(value, float) else str(value), []).append(position)
    return [by_value[value] for value in sorted(by_value, key=lambda value: (-len(by_value[value]), value))]


def _by_column(groups: Sequence[list[int]], count: int) -> list[list[int]]:
    shares: list[list[int]] = [[] for _ in range(count)]
    for group in groups:
        min(shares, key=len).extend(group)
    return shares


def _by_dirichlet(groups: Sequence[list[int]], count: int, alpha: float, draw: np.random.Generator) -> list[list[int]]:
    shares: list[list[int]] = [[] for _ in range(count)]
    for group in groups:
        probabilities = draw.dirichlet(np.full(count, alpha))
        cuts = np.round(np.cumsum(probabilities)[:-1] * len(group)).astype(int)
        for share, part in zip(shares, np.split(draw.permutation(group), cuts), strict=True):
            share.extend(map(int, part))
    return shares


def _too_few(client: str, found: int, rows: int, table: PartitionTable) -> DataError:
    advice = {
        "iid": "Use fewer clients",
        "column": f"Use fewer clients than the column {table.column!r} has values",
        "dirichlet": f"Use a larger alpha than {table.alpha:g}, fewer clients or another seed",
    }
    return DataError(
        f"the {table.kind} partition of {rows} rows leaves too few",
        where=f"client {client!r}",
        expected=f"at least {MIN_ROWS} rows",
        found=found,
        do=advice[table.kind],
    )
