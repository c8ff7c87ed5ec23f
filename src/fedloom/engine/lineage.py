"""Where a run that continues another comes from: read from the first line of its journal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedloom.errors import RunError
from fedloom.spec.experiment import Experiment
from fedloom.store.lineage import CONTINUES
from fedloom.store.run_directory import RunDirectory


@dataclass(frozen=True)
class Parent:
    """The run that this one continues.

    run, path: its name and its directory, as it was then.  round: from which its state was taken.  digest: of that
    round's files; model: of its global delta.  journal: the digest of its journal's last line then.
    """

    run: str
    path: str
    round: int
    digest: str
    model: str
    journal: str

    def fact(self) -> dict[str, Any]:
        """What goes into the facts of a run, under `CONTINUES`."""
        return {CONTINUES: asdict(self)}


def parent_of(directory: RunDirectory) -> Parent | None:
    """None for a run that began from nothing."""
    known = directory.facts.get(CONTINUES)
    return None if known is None else Parent(**known)


def lineage_of(path: Path) -> list[Parent]:
    """The parents of a run, the nearest first, as far as their directories are still there."""
    found: list[Parent] = []
    while (path / "journal.jsonl").is_file() and (parent := parent_of(RunDirectory.open(path))) is not None:
        found.append(parent)
        path = Path(parent.path)
    return found


def refuse_first_round(experiment: Experiment) -> None:
    """Raises: RunError for a configuration that only goes on from a state."""
    if experiment.training.first_round is not None:
        raise RunError(
            "the configuration is of a run that continues another, and has no beginning of its own",
            where="[training] first_round",
            expected="none",
            found=experiment.training.first_round,
            do="Leave first_round out, or go on from a finished run: fedloom continue RUN --data FOLDER",
        )
