"""The folders of committed rounds against what the journal recorded: every file, not only the first that is damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedloom.errors import RunError
from fedloom.store import checkpoint
from fedloom.store.audit.findings import Check, Damage, counted
from fedloom.store.checkpoint import MANIFEST
from fedloom.store.exported import sha256_of
from fedloom.store.in_force import ROLLED_BACK

COMMITTED, SET_ASIDE = "round_committed", "rolled-back"
_MOST = 10**9  # no run has as many rounds


def committed_rounds(records: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """round -> digest of its manifest, of rounds that were not rolled back."""
    committed: dict[int, str] = {}
    for record in records:
        round = record.get("round")
        if type(round) is not int or not 0 <= round < _MOST:
            continue
        if record.get("kind") == COMMITTED:
            committed[round] = str(record.get("digest"))
        elif record.get("kind") == ROLLED_BACK:
            committed = {known: digest for known, digest in committed.items() if known <= round}
    return committed


def check_rounds(run: Path, records: Sequence[Mapping[str, Any]], *, whole: bool) -> Check:
    """Every committed round's manifest and files. whole: whether the journal is as it was written: what it lacks is
    only then a finding of its own."""
    committed = committed_rounds(records)
    there = set(checkpoint.rounds(run / "rounds"))
    damage = [one for round, digest in sorted(committed.items()) for one in _round_damage(run, round, digest)]
    if whole:
        damage += [_unknown(round) for round in sorted(there - committed.keys())]
    told = f"{len(committed)} committed"
    return Check("rounds", "the journal's digest of each manifest, each manifest's digests", told, tuple(damage))


def check_set_aside(run: Path, records: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """Rounds that were rolled back and kept: each manifest is one that was recorded when its round was committed."""
    recorded = {str(record.get("digest")) for record in records if record.get("kind") == COMMITTED}
    damage, manifests = list[Damage](), sorted((run / SET_ASIDE).rglob(MANIFEST))
    for path in manifests:
        name = path.parent.relative_to(run).as_posix()
        manifest = path.read_bytes()
        found = hashlib.sha256(manifest).hexdigest()
        if found not in recorded:
            what = "the journal has no such manifest in any round that was committed"
            damage.append(Damage(f"{name}/{MANIFEST}", what, found=f"digest {found[:12]}"))
        damage += _file_damage(path.parent, name, listed_files(manifest))
    if manifests:
        against = "the journal's digests of committed rounds"
        yield Check(SET_ASIDE, against, counted(len(manifests), "round"), tuple(damage))


def _unknown(round: int) -> Damage:
    what = "the journal has no record of this round: its last lines were cut, or a process was killed between the two"
    return Damage(f"rounds/{round:04d}", what, "a record round_committed", "none")


def _round_damage(run: Path, round: int, digest: str) -> Iterator[Damage]:
    name = f"rounds/{round:04d}"
    folder = run / name
    if not folder.is_dir():
        yield Damage(name, "the folder of a committed round is gone", f"manifest {digest[:12]}", "no folder")
        return
    try:
        manifest = (folder / MANIFEST).read_bytes()
    except OSError as error:
        yield Damage(f"{name}/{MANIFEST}", "the file cannot be read", f"digest {digest[:12]}", str(error.strerror))
        return
    found = hashlib.sha256(manifest).hexdigest()
    if found != digest:
        yield Damage(f"{name}/{MANIFEST}", "the file is not the one that was recorded", digest[:12], found[:12])
    listed = listed_files(manifest)
    yield from _file_damage(folder, name, listed)


def listed_files(manifest: bytes) -> dict[str, str]:
    """name -> SHA-256 of the files that a manifest lists; without what it does not say in so many words."""
    try:
        files = json.loads(manifest)["files"]
        return {str(name): str(entry["sha256"]) for name, entry in files.items() if Path(name).name == name}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _file_damage(folder: Path, name: str, listed: Mapping[str, str]) -> Iterator[Damage]:
    for file, expected in sorted(listed.items()):
        try:
            found = sha256_of(folder / file)
        except (RunError, ValueError) as error:
            yield Damage(f"{name}/{file}", "the file cannot be read", f"digest {expected[:12]}", _reason(error))
            continue
        if found != expected:
            yield Damage(f"{name}/{file}", "the file was changed", f"digest {expected[:12]}", f"digest {found[:12]}")
    present = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    for file in sorted(present - {*listed, MANIFEST}) if listed else ():
        yield Damage(f"{name}/{file}", "the file is not in the manifest")


def _reason(error: Exception) -> str:
    return str(error.found) if isinstance(error, RunError) else str(error)
