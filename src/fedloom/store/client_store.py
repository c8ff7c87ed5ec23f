"""What one client keeps on its own disk from round to round. Only the client half uses it; it never travels."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fedloom.adapters.io import from_bytes, to_bytes
from fedloom.errors import AdapterError, CheckpointDamagedError, RunError
from fedloom.store.durable import cannot_write, make_directory, publish, sync_directory, sync_file, write_file
from fedloom.store.unfinished import remove_abandoned, replace_file

_ROUND_FILE = re.compile(r"([0-9]{4,})\.safetensors")
_UNFINISHED = re.compile(r"\.([0-9]{4,}\.safetensors)\.tmp-[0-9]+")
_DIGEST = "digest"
_EARLIER = re.compile(r"earlier-([0-9]{4,})")  # folders of what was set aside
_RUN = "run.txt"  # the name of the run that the files are of


@dataclass(frozen=True)
class ClientStore:
    """One file of tensors for each round that the client trained in: NNNN.safetensors, there completely or not at all.

    directory: of this client alone; it is made when there is something to keep. One process at a time may write.
    Files of rounds that counted stay, as the server's checkpoints do: any of those rounds can be gone back to, measured
    and exported again.
    """

    directory: Path

    def save(self, round: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep this for the time after a round, durably; what an earlier attempt at the round left is replaced.

        Raises: RunError if it cannot be written; the files of earlier rounds are as they were.
        """
        facts = {"round": str(round), _DIGEST: _digest(tensors)}
        path = self._path(round)
        try:
            make_directory(self.directory)
        except OSError as error:
            intact = "Nothing of this client is lost"
            raise cannot_write(error, path, needed_bytes=0, intact=intact) from error
        intact = "What the client kept of earlier rounds is intact"
        replace_file(path, to_bytes({}, tensors, facts=facts), intact=intact, again="resume")

    def load(self, round: int) -> dict[str, Tensor]:
        """What was kept after a round.

        Raises: RunError if there is no such file; CheckpointDamagedError if it is not as it was written.
        """
        path = self._path(round)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RunError(
                f"what this client kept of round {round} cannot be read",
                where=path,
                expected="the file of the last round that its contribution counted in",
                found=f"{error.strerror}; files of rounds {self.rounds()}",
                do="Put the client's directory back from a copy, or start a new run",
            ) from error
        return _checked(data, path, round)

    def rounds(self) -> list[int]:
        """The rounds that there is a file of, in order."""
        if not self.directory.is_dir():
            return []
        names = (_ROUND_FILE.fullmatch(entry.name) for entry in self.directory.iterdir())
        return sorted(int(name[1]) for name in names if name)

    def forget_after(self, round: int) -> list[int]:
        """Remove the files of all later rounds, and what killed processes left; returns those rounds.

        round: the last one that counted. Later ones were never committed, refused, or rolled back: nothing may go on
            from them.
        Raises: RunError if one cannot be removed.
        """
        left = [later for later in self.rounds() if later > round]
        try:
            for later in left:
                self._path(later).unlink()
        except OSError as error:
            raise cannot_write(error, self.directory, needed_bytes=0, intact="Nothing was changed") from error
        for entry in list(self.directory.iterdir()) if self.directory.is_dir() else ():
            if unfinished := _UNFINISHED.fullmatch(entry.name):
                remove_abandoned(self.directory / unfinished[1])
        return left

    def set_aside_after(self, round: int) -> Path | None:
        """Move the files of all later rounds into a folder beside them, and return it; None if there are none.

        For what a server that was lost, or went back, knows nothing of, and nobody else has. The folder has the name of
        the run first: killed at any moment, no file is without the name that it had.
        Raises: RunError if they cannot be moved.
        """
        later = [found for found in self.rounds() if found > round]
        if not later:
            return None
        folder, name = self._new_folder(), self.run()
        try:
            folder.mkdir()
            sync_directory(self.directory)
            if name is not None:
                write_file(folder / _RUN, name.encode())
            for one in later:
                publish(self._path(one), folder / self._path(one).name)
            sync_directory(self.directory)
        except OSError as error:
            raise cannot_write(error, folder, needed_bytes=0, intact="Nothing of this client is lost") from error
        return folder

    def _new_folder(self) -> Path:
        """Behind all that are there, also where some of them were removed."""
        names = (_EARLIER.fullmatch(entry.name) for entry in self.directory.iterdir())
        return self.directory / f"earlier-{1 + max((int(name[1]) for name in names if name), default=0):04d}"

    def run(self) -> str | None:
        """The name of the run that the files are of; None where none was named yet."""
        path = self.directory / _RUN
        try:
            return path.read_text(encoding="utf-8") if path.exists() else None
        except (OSError, ValueError) as error:
            raise RunError("it cannot be read which run this is of", where=path, found=str(error)) from error

    def begin(self, run: str) -> None:
        """Keep files for this run from now on; those of another one are set aside, with its name where that is known,
        as earlier versions wrote none.

        Raises: RunError if they cannot be moved, or the name cannot be written.
        """
        if self.run() == run:
            return
        self.set_aside_after(0)
        try:
            make_directory(self.directory)
        except OSError as error:
            raise cannot_write(
                error, self.directory, needed_bytes=0, intact="Nothing of this client is lost"
            ) from error
        replace_file(self.directory / _RUN, run.encode(), intact="Nothing of this client is lost", again="resume")

    def _path(self, round: int) -> Path:
        return self.directory / f"{round:04d}.safetensors"


def copy_kept(source: Path, target: Path, round: int) -> None:
    """Copy what a client has into a directory for another run: its file of one round, and all that is of no round, such
    as its privacy ledger, but not the name of its run. round: the last one that counted; 0 for none.

    Raises: OSError.
    """
    make_directory(target)
    wanted = f"{round:04d}.safetensors"
    for path in sorted(source.iterdir()):
        of_a_round = _ROUND_FILE.fullmatch(path.name) is not None
        is_taken_along = path.name == wanted or not (of_a_round or path.name == _RUN)
        if path.is_file() and not path.name.startswith(".") and is_taken_along:
            shutil.copy2(path, target / path.name)
            sync_file(target / path.name)
    sync_directory(target)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Of names, shapes, dtypes and numbers: equal tensors are equal bytes."""
    return hashlib.sha256(to_bytes({}, dict(sorted(tensors.items())), facts={})).hexdigest()


def _checked(data: bytes, path: Path, round: int) -> dict[str, Tensor]:
    do = "Put the client's directory back from a copy, or start a new run"
    try:
        _, tensors, facts = from_bytes(data, where=str(path))
    except AdapterError as error:
        raise CheckpointDamagedError("what this client kept is damaged", where=path, found=error.what, do=do) from error
    expected = {"round": str(round), _DIGEST: _digest(tensors)}
    if facts != expected:
        raise CheckpointDamagedError(
            "what this client kept is damaged, or of another round", where=path, expected=expected, found=facts, do=do
        )
    return tensors
