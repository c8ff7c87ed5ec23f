"""Names of run directories, and of what is in one."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from fedloom.errors import RunError

REGISTRY = ("registry.jsonl", "versions")  # beside the runs, of all that were promoted
OWN_FOLDERS = frozenset(
    ("adapter", "alone", "clients", "compared", "control", "explain", "late", "pieces", "rolled-back", "rounds")
)


def refuse_own_folder(path: Path) -> None:
    """Raises: RunError for a place among the files that a run keeps, where something else would be taken for damage."""
    place = path.absolute().resolve()
    for above in place.parents:
        name = place.relative_to(above).parts[0]
        if name in OWN_FOLDERS and (above / "journal.jsonl").is_file():
            what, expected = "this is among the files that a run keeps", "a place outside of them"
            raise RunError(what, where=path, expected=expected, found=f"{name} of {above}", do="Choose another")


def refuse_existing(path: Path) -> None:
    """Raises: RunError if there is something at this path, or promoted versions are kept there."""
    if path.name in REGISTRY:
        raise RunError("no run can have this name: promoted versions are kept there", where=path, do="Choose another")
    if path.exists():
        do = f"Continue it with `fedloom resume {path}`, or give the new run another name"
        raise RunError("there is a run of this name already", where=path, do=do)


def free_name(root: Path, stem: str) -> str:
    """The stem, or the stem with the smallest number that no directory in root has yet."""
    names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
    return next(name for name in names if not (root / name).exists())
