"""A run for whoever audits it elsewhere: journal, configuration, manifests and ledgers, and the script that verifies
them. No rows of any client, nothing that a client keeps, and no weights unless they are asked for."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from fedloom.errors import RunError
from fedloom.export.peft import refuse_filled
from fedloom.store.audit.alone import ALONE
from fedloom.store.audit.run import CLIENTS, CONFIGURATION, JOURNAL
from fedloom.store.checkpoint import MANIFEST
from fedloom.store.durable import cannot_write
from fedloom.store.journal import GENESIS, parsed_line
from fedloom.store.ledger import FILE as LEDGER
from fedloom.store.names import refuse_own_folder
from fedloom.store.unfinished import new_directory, unfinished_name

SCRIPT, LIST = "verify.py", "bundle.json"
_FORMAT, _VERSION = "fedloom.audit", 1
_THEN = (2020, 1, 1, 0, 0, 0)  # of every file in an archive: equal runs give equal archives


def export_bundle(run: Path, to: Path, *, ledgers: Path | None = None, weights: bool = False) -> list[str]:
    """Write the bundle, a folder or with the ending .zip an archive; the names in it, in sorted order.

    A run that was changed is bundled as it is: `verify.py` says what was.
    ledgers: where clients' ledgers are, as CLIENT/ledger.jsonl; None: in the run.  weights: with each round's state.
    Raises: RunError if there is something at that place, or a file cannot be read or written.
    """
    files = _sources(run, ledgers or run / CLIENTS, weights)
    listed = {"format": _FORMAT, "version": _VERSION, "head": _head(run / JOURNAL)}
    script = resources.files("fedloom.export").joinpath(SCRIPT).read_bytes()
    digests = {name: _digest_of(path) for name, path in files.items()}
    table = {**listed, "files": {**digests, SCRIPT: hashlib.sha256(script).hexdigest()}}
    made = {LIST: (json.dumps(table, indent=1, sort_keys=True) + "\n").encode(), SCRIPT: script}
    needed = sum(path.stat().st_size for path in files.values())
    write = _write_archive if to.suffix == ".zip" else _write_folder
    try:
        write(to, files, made)
    except OSError as error:
        raise cannot_write(
            error, to, needed_bytes=needed, intact="The run is as it was", again="export again"
        ) from error
    return sorted({*files, *made})


def _sources(run: Path, ledgers: Path, weights: bool) -> dict[str, Path]:
    """name in the bundle -> the file of the run."""
    below = sorted(path.parent for path in run.glob(f"{ALONE}/*/{JOURNAL}"))
    files = [path for folder in (run, *below) for path in _of_one_run(folder, weights)]
    found = {path.relative_to(run).as_posix(): path for path in files}
    found |= {f"{CLIENTS}/{path.parent.name}/{LEDGER}": path for path in sorted(ledgers.glob(f"*/{LEDGER}"))}
    return {name: path for name, path in found.items() if path.is_file()}


def _of_one_run(run: Path, weights: bool) -> list[Path]:
    rounds = sorted((run / "rounds").glob("[0-9]*/*" if weights else f"[0-9]*/{MANIFEST}"))
    return [run / JOURNAL, run / CONFIGURATION, *rounds]


def _head(journal: Path) -> str:
    """What the last line says its digest is: not verified here."""
    last = parsed_line((_read(journal).splitlines() or [b""])[-1]) or {}
    return str(last.get("record_digest", GENESIS))


def _digest_of(path: Path) -> str:
    return hashlib.sha256(_read(path)).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError("the file cannot be read", where=path, found=error.strerror) from error


def _write_folder(to: Path, files: Mapping[str, Path], made: Mapping[str, bytes]) -> None:
    refuse_filled(to)
    with new_directory(to.absolute()) as unfinished:
        for name in sorted({*files, *made}):
            place = unfinished / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(made[name] if name in made else _read(files[name]))


def _write_archive(to: Path, files: Mapping[str, Path], made: Mapping[str, bytes]) -> None:
    refuse_own_folder(to)
    if to.exists():
        raise RunError("there is something here already", where=to, expected="a new file", do="Choose another")
    to.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_name(to)
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted({*files, *made}):
                content = made[name] if name in made else _read(files[name])
                archive.writestr(zipfile.ZipInfo(f"{to.stem}/{name}", _THEN), content, zipfile.ZIP_DEFLATED)
        unfinished.rename(to)
    finally:
        unfinished.unlink(missing_ok=True)
