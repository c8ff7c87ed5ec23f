"""The files of a round: there completely or not at all, and known by their digests."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedloom.errors import CheckpointDamagedError, RunError
from fedloom.store.durable import NOTHING_CHANGED, cannot_write, publish, sync_directory, sync_file, write_file
from fedloom.store.unfinished import unfinished_name

MANIFEST = "manifest.json"
ROUND_NAME = re.compile(r"[0-9]{4,}")


@dataclass(frozen=True)
class Written:
    """The content of a file that is too large to be in memory twice. write: puts it at a path.  size: about so many
    bytes."""

    write: Callable[[Path], None]
    size: int


Content = bytes | Written


def commit(directory: Path, round: int, files: Mapping[str, Content]) -> str:
    """Write the files of one round, all or none, and return the digest of their manifest.

    Committing the same files again changes nothing.
    Raises: RunError if the round is there with other files, or the disk is full.
    """
    final = _folder(directory, round)
    unfinished = unfinished_name(final)
    # In a container the process that was killed had the number of this one: what is there is no living one's.
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        for name, content in sorted(files.items()):
            _write(unfinished / name, content)
        manifest = _manifest({name: _entry_of(unfinished / name) for name in files})
        write_file(unfinished / MANIFEST, manifest)
        sync_directory(unfinished)
        if not final.exists():
            publish(unfinished, final)
            return _sha256(manifest)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        needed = sum(content.size if isinstance(content, Written) else len(content) for content in files.values())
        raise cannot_write(error, final, needed_bytes=needed, intact=_intact_words(directory, round)) from error
    shutil.rmtree(unfinished, ignore_errors=True)
    _require_same(directory, round, _sha256(manifest))
    return _sha256(manifest)


def _write(path: Path, content: Content) -> None:
    if isinstance(content, Written):
        path.touch(0o644)
        mode = path.stat().st_mode  # what this user lets others read; a library may think otherwise
        content.write(path)
        path.chmod(mode)
        sync_file(path)
    else:
        write_file(path, content)


def _entry_of(path: Path) -> dict[str, object]:
    with path.open("rb") as opened:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def read(directory: Path, round: int, expected_digest: str | None = None) -> dict[str, bytes]:
    """The files of one round, verified against their manifest (and that against the digest that was recorded).

    Raises: CheckpointDamagedError naming round, file, expected and found digest, and the rounds that are intact.
    """
    try:
        return _verified(directory, round, expected_digest)
    except _Damage as damage:
        raise CheckpointDamagedError(
            damage.what,
            where=f"round {round}, {_folder(directory, round) / damage.file}",
            expected=damage.expected,
            found=damage.found,
            do=damage.do
            or f"{_intact_words(directory, round)}. To go on from there, move {_folder(directory, round)} and "
            "all later rounds away, then resume",
        ) from None


def digest_of(directory: Path, round: int) -> str:
    """The digest of a round's manifest, after its files were verified. Raises: CheckpointDamagedError."""
    return _sha256(_manifest(_entries(read(directory, round))))


def rounds(directory: Path) -> list[int]:
    """The rounds that have a folder, intact or not, in order."""
    if not directory.is_dir():
        return []
    names = (entry.name for entry in directory.iterdir() if ROUND_NAME.fullmatch(entry.name) and entry.is_dir())
    return sorted(int(name) for name in names if name == _folder(directory, int(name)).name)


def intact_rounds(directory: Path) -> list[int]:
    """The rounds whose files agree with their manifest, in order."""
    return [round for round in rounds(directory) if _is_intact(directory, round)]


def remove_unfinished(directory: Path) -> list[str]:
    """Remove what killed processes left behind; returns the names. Only for the holder of the run's lock.

    Raises: RunError if it cannot be removed.
    """
    left = [entry for entry in directory.glob(".*.tmp-*") if entry.is_dir()]
    for entry in left:
        try:
            shutil.rmtree(entry)
        except OSError as error:
            raise cannot_write(error, entry, needed_bytes=0, intact=NOTHING_CHANGED) from error
    return sorted(entry.name for entry in left)


class _Damage(Exception):
    """Inside this file only: what is wrong with a round."""

    def __init__(
        self, what: str, file: str, expected: object = None, found: object = None, do: str | None = None
    ) -> None:
        super().__init__(what)
        self.what, self.file, self.expected, self.found, self.do = what, file, expected, found, do


def _verified(directory: Path, round: int, expected_digest: str | None) -> dict[str, bytes]:
    folder = _folder(directory, round)
    present = _names(folder)
    if folder.is_dir() and not present:
        raise _Damage("the folder of the round is empty", "", do=f"Remove {folder}, then resume")
    manifest = _bytes(folder, MANIFEST)
    if expected_digest is not None and _sha256(manifest) != expected_digest:
        raise _Damage("the manifest is not the one that was recorded", MANIFEST, expected_digest, _sha256(manifest))
    listed = _parsed(manifest)
    files = {name: _bytes(folder, name) for name in listed}
    for name, data in files.items():
        if _entry(data) != listed[name]:
            expected = listed[name].get("sha256") if isinstance(listed[name], dict) else listed[name]
            raise _Damage("the file is damaged", name, expected, _sha256(data))
    if _manifest(_entries(files)) != manifest:
        raise _Damage("the manifest is damaged", MANIFEST)
    unknown = sorted(present - {*files, MANIFEST})
    if unknown:
        raise _Damage("the file is not in the manifest", unknown[0])
    return files


def _names(folder: Path) -> set[str]:
    """What is in a folder, but for hidden files, which file managers leave wherever they look."""
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} if folder.is_dir() else set()


def _bytes(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except (OSError, ValueError) as error:
        raise _Damage("the file cannot be read", name, found=getattr(error, "strerror", str(error))) from error


def _parsed(manifest: bytes) -> dict:
    try:
        listed = dict(json.loads(manifest)["files"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _Damage("the manifest cannot be read", MANIFEST, found=str(error)) from error
    paths = [name for name in listed if Path(name).name != name]
    if paths:
        raise _Damage("the manifest names a file elsewhere", MANIFEST, "plain file names", paths[0])
    return listed


def _manifest(entries: Mapping[str, Mapping[str, object]]) -> bytes:
    return json.dumps({"files": entries}, sort_keys=True, indent=1).encode() + b"\n"


def _entries(files: Mapping[str, bytes]) -> dict[str, dict[str, object]]:
    return {name: _entry(data) for name, data in files.items()}


def _entry(data: bytes) -> dict[str, object]:
    return {"bytes": len(data), "sha256": _sha256(data)}


def _require_same(directory: Path, round: int, digest: str) -> None:
    found = digest_of(directory, round)
    if found != digest:
        raise RunError(
            "the round is there already, with other files",
            where=_folder(directory, round),
            expected=digest,
            found=found,
            do="A committed round is never overwritten; start a new run, or move this folder and all later ones away",
        )


def _intact_words(directory: Path, before: int) -> str:
    intact = [round for round in intact_rounds(directory) if round < before]
    if not intact:
        return "No earlier round is intact"
    complete = intact == list(range(intact[0], before))
    return f"Rounds up to {intact[-1]} are intact" if complete else f"Of the earlier rounds {intact} are intact"


def _is_intact(directory: Path, round: int) -> bool:
    try:
        _verified(directory, round, None)
    except _Damage:
        return False
    return True


def _folder(directory: Path, round: int) -> Path:
    return directory / f"{round:04d}"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
