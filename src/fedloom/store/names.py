"""Names of run directories."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from fedloom.errors import RunError


def refuse_existing(path: Path) -> None:
    """Raises: RunError if there is something at this path."""
    if path.exists():
        do = f"Continue it with `fedloom resume {path}`, or give the new run another name"
        raise RunError("there is a run of this name already", where=path, do=do)


def free_name(root: Path, stem: str) -> str:
    """The stem, or the stem with the smallest number that no directory in root has yet."""
    names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    return next(name for name in names if not (root / name).exists())
