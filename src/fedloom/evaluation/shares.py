"""How much of the rest of the world each layer used for each token of one text."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum


@dataclass(frozen=True)
class TokenShares:
    """What a client's mixers did with one text.

    tokens: as text, one by one.  by_module: module -> share of the rest of the world, 0 to 1, of each token.
    borrows: how much of the rest of the world the client chose to borrow, 1 for all of it; None: it does not choose.
    """

    run: str
    client: str
    method: str
    round: int
    tokens: tuple[str, ...]
    by_module: Mapping[str, tuple[float, ...]]
    borrows: float | None = None

    @property
    def chosen(self) -> str:
        """What the client chose, in words; empty where it does not choose."""
        said = f"{self.client} chose, by its own rows, to borrow "
        return "" if self.borrows is None else f"{said}{100 * self.borrows:g}% of the rest of the world"

    @property
    def by_block(self) -> dict[str, list[float]]:
        """block of layers -> mean over its modules, of each token."""
        return by_block(self.by_module)

    @property
    def by_token(self) -> list[float]:
        """Mean over all modules, of each token."""
        return means(list(self.by_module.values()))

    @property
    def mean(self) -> float:
        """Over modules and tokens."""
        return fsum(self.by_token) / len(self.tokens)


def block_of(module: str) -> str:
    """The block that a module is in: its name up to the first number, or all of it where there is none."""
    numbered = re.match(r"(?:.*?\.)?\d+(?=\.|$)", module)
    return numbered[0] if numbered else module


def by_block(values: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """block -> mean over its modules, position by position; blocks in the order of their numbers."""
    grouped: dict[str, list[Sequence[float]]] = defaultdict(list)
    for module, row in values.items():
        grouped[block_of(module)].append(row)
    return {block: means(grouped[block]) for block in sorted(grouped, key=_natural)}


def means(rows: Sequence[Sequence[float]]) -> list[float]:
    """Mean over rows, position by position."""
    return [fsum(column) / len(column) for column in zip(*rows, strict=True)]


def _natural(block: str) -> tuple[str, int]:
    """ "layers.10" comes behind "layers.9"."""
    before, _, number = block.rpartition(".")
    return (before, int(number)) if number.isdigit() else (block, -1)
