"""The files of the adapter that a run wrote at its end, by their digests: for whoever verifies them later."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedloom.errors import RunError

FINISHED, REWRITTEN = "run_finished", "adapter_rewritten"


def file_digests(directory: Path) -> dict[str, str]:
    """name below the directory -> SHA-256 of each file there, in sorted order; hidden files are none of ours.

    Raises: RunError for a file that cannot be read.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file() and not is_hidden(path, directory))
    return {path.relative_to(directory).as_posix(): sha256_of(path) for path in files}


def is_hidden(path: Path, below: Path) -> bool:
    """Whether a file manager, or a process that was killed, left it."""
    return any(part.startswith(".") for part in path.relative_to(below).parts)


def sha256_of(path: Path) -> str:
    """Raises: RunError for a file that cannot be read."""
    try:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise RunError("the file cannot be read", where=path, found=error.strerror) from error


def adapter_files(records: Iterable[Mapping[str, Any]]) -> dict[str, str] | None:
    """What the journal says last of the adapter's files; None in a run of a version that did not say it, or before its
    end."""
    said = [record.get("files") for record in records if record.get("kind") in (FINISHED, REWRITTEN)]
    return dict(said[-1]) if said and isinstance(said[-1], Mapping) else None
