"""Named versions of models that were promoted, beside the runs that they come from: a chained file that only grows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fedloom.errors import CheckpointDamagedError, RunError
from fedloom.store import checkpoint, rollback
from fedloom.store.durable import NOTHING_CHANGED, cannot_write, lock, make_directory, unlock
from fedloom.store.journal import Journal
from fedloom.store.names import REGISTRY

FILE, FOLDER = REGISTRY
PROMOTED = "promoted"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    run: name of the run's directory, beside the registry.  round; client: whose model, where each has its own.
    digest: of the model.  checkpoint: of the round's files.  configuration: digest of the run's.
    base, base_digest: what it was trained on.  rows: client -> digest of its rows, where the run knows them.
    metrics: what was measured after the round: "pooled" and "clients".
    """

    run: str
    round: int
    digest: str
    checkpoint: str
    configuration: str
    base: str
    base_digest: str
    client: str | None = None
    rows: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Version:
    """A promoted model. name, version: such as prod and 3.  parent: the version that had the name before.
    files: name -> SHA-256 of what is in versions/<name>-<version>.  time: UTC, ISO."""

    name: str
    version: int
    parent: str | None
    origin: Origin
    files: Mapping[str, str]
    time: str

    @property
    def label(self) -> str:
        return f"{self.name}-{self.version}"


@dataclass(frozen=True)
class Verified:
    """What became of a version. problems: empty where all digests hold.
    place: where its round is: in the "run", "rolled back", or "gone"."""

    version: Version
    place: str
    problems: tuple[str, ...]


class Registry:
    """The registry of one folder of runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / FILE

    def versions(self, name: str | None = None) -> list[Version]:
        """All versions, or those of one name, in the order in which they were promoted.

        Raises: JournalDamagedError if the file was edited; RunError if nothing has this name.
        """
        records = Journal(self.path).records() if self.path.exists() else []
        found = [_version(record) for record in records if record.kind == PROMOTED]
        chosen = [version for version in found if name is None or version.name == name]
        if name is not None and not chosen:
            names = sorted({version.name for version in found})
            raise RunError("there is no such version", where=self.path, expected=f"one of {names}", found=repr(name))
        return chosen

    def place(self, version: Version) -> Path:
        """Where the model of a version is."""
        return self.root / FOLDER / version.label

    def promote(self, name: str, origin: Origin, write: Callable[[Path], None]) -> Version:
        """Give a model a name. write: fills the directory of the new version, completely or not at all.

        A process that is killed before the registry has the version leaves its directory; the number is not used again.
        Raises: RunError for a name with other than letters, digits, dots, dashes and underscores, or if the registry is
            in use or cannot be written; JournalDamagedError if it was edited.
        """
        check_name(name)
        descriptor = self._locked()
        try:
            earlier = [version for version in self.versions() if version.name == name]
            number = 1 + max([*(version.version for version in earlier), *self._begun(name)], default=0)
            place = self.root / FOLDER / f"{name}-{number}"
            write(place)
            facts = {"name": name, "version": number, "parent": earlier[-1].label if earlier else None}
            record = Journal(self.path).append(PROMOTED, **facts, **asdict(origin), files=file_digests(place))
        finally:
            unlock(descriptor)
        return _version(record)

    def verify(self, version: Version) -> Verified:
        """Whether the files of a version, and of the round that it comes from, still have their digests."""
        found = file_digests(self.place(version))
        problems = [f"{name} is missing" for name in sorted(version.files.keys() - found.keys())]
        problems += [f"{name} was added" for name in sorted(found.keys() - version.files.keys())]
        common = sorted(found.keys() & version.files.keys())
        problems += [f"{name} was changed" for name in common if found[name] != version.files[name]]
        place, damage = self._round(version.origin)
        return Verified(version, place, (*problems, *damage))

    def _round(self, origin: Origin) -> tuple[str, list[str]]:
        run, name = self.root / origin.run, f"{origin.round:04d}"
        moved = sorted((run / rollback.FOLDER).glob(f"*/{name}"))
        for folder, place in [(run / "rounds" / name, "run"), *((each, "rolled back") for each in moved)]:
            manifest = folder / checkpoint.MANIFEST
            if not manifest.is_file() or _sha256(manifest) != origin.checkpoint:
                continue
            try:
                checkpoint.read(folder.parent, origin.round, origin.checkpoint)
            except CheckpointDamagedError as error:
                return place, [str(error)]
            return place, []
        return "gone", []

    def _begun(self, name: str) -> list[int]:
        """The numbers of all directories of this name."""
        place, pattern = self.root / FOLDER, re.compile(re.escape(name) + r"-([0-9]+)")
        found = [pattern.fullmatch(entry.name) for entry in place.iterdir()] if place.is_dir() else []
        return [int(match[1]) for match in found if match]

    def _locked(self) -> int:
        try:
            make_directory(self.root / FOLDER)
        except OSError as error:
            place = self.root / FOLDER
            raise cannot_write(error, place, needed_bytes=0, intact=NOTHING_CHANGED, again="promote again") from error
        return lock(self.root / FOLDER / ".lock", "the registry is in use")


def check_name(name: str) -> None:
    """Raises: RunError for what cannot be the name of versions."""
    if not _NAME.fullmatch(name):
        expected = "at most 64 letters, digits, dots, dashes and underscores, the first a letter or digit"
        raise RunError("not the name of a version", expected=expected, found=repr(name))


def file_digests(directory: Path) -> dict[str, str]:
    """Path below the directory -> SHA-256, of every file in it."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _version(record: Mapping[str, Any]) -> Version:
    origin: dict[str, Any] = {each.name: record[each.name] for each in fields(Origin)}
    facts: dict[str, Any] = {name: record[name] for name in ("name", "version", "parent", "files", "time")}
    return Version(origin=Origin(**origin), **facts)
