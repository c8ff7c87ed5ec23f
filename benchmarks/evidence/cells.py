"""What was measured so far: one line of JSON per cell, written as soon as it is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One training: everything that its result depends on.

    variant: spelled out with all settings.  recipe: the numbers of the setting (rounds, steps, rows, model).
    """

    suite: str
    setting: str
    recipe: str
    variant: str
    rate: float
    seed: int


Metrics = Mapping[str, float]
Known = Mapping[Cell, Metrics]


class Cells:
    """The measured cells of one suite, kept in a file. A line cut off by a kill is ignored and measured again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def known(self) -> dict[Cell, Metrics]:
        """cell -> its metrics; empty for a training that failed."""
        return {Cell(**row["cell"]): row["metrics"] for row in self._rows()}

    def labels(self) -> list[tuple[str, str]]:
        """Setting and label of every contender that was ever measured, each once."""
        return list(dict.fromkeys((row["cell"]["setting"], row["label"]) for row in self._rows()))

    def _rows(self) -> list[dict[str, Any]]:
        rows = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else ():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return rows

    def add(self, cell: Cell, label: str, metrics: Metrics, problem: str = "") -> None:
        """Append one measured cell; label: its contender as it was asked for; problem: why there are no metrics."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        begins = b"\n" if self._is_cut_off() else b""
        row = {"cell": asdict(cell), "label": label, "metrics": dict(metrics)}
        row |= {"problem": problem} if problem else {}
        with self.path.open("ab") as file:
            file.write(begins + json.dumps(row).encode() + b"\n")

    def _is_cut_off(self) -> bool:
        written = self.path.read_bytes() if self.path.exists() else b""
        return bool(written) and not written.endswith(b"\n")
