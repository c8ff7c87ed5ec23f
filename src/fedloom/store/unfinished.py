"""Files and directories that are made beside their place and appear there when they are complete."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedloom.store.durable import cannot_write, publish, sync_tree, write_file


def replace_file(path: Path, data: bytes, *, intact: str, again: str) -> None:
    """Write a whole file beside its place and put it there; until then the old one stays.

    Raises: RunError, as of `cannot_write`.
    """
    unfinished = unfinished_name(path)
    try:
        write_file(unfinished, data)
        publish(unfinished, path)
    except OSError as error:
        raise cannot_write(error, path, needed_bytes=len(data), intact=intact, again=again) from error
    finally:
        _forget(unfinished)


@contextmanager
def new_directory(path: Path, *, mode: int = 0o777) -> Iterator[Path]:
    """A directory to fill. It gets its name, or its files move into the directory that is there, when the block ends.

    If the block fails nothing is left of it.  mode: of a new directory, from its first moment.
    """
    there = path.is_dir()
    # What is there may be a mount or somebody's working directory, which another one cannot replace.
    place = path / path.name if there else path
    remove_abandoned(place)
    unfinished = unfinished_name(place)
    try:
        unfinished.mkdir(mode, parents=True)
        yield unfinished
        sync_tree(unfinished)
        if there:
            _move_into(unfinished, path)
        else:
            publish(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move_into(source: Path, target: Path) -> None:
    """Every file to its place in a directory that is there; a folder that is there too is filled, not replaced."""
    for entry in list(source.iterdir()):
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            _move_into(entry, place)
        else:
            publish(entry, place)


def unfinished_name(path: Path) -> Path:
    """Where this process makes what will be at the path."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def remove_abandoned(path: Path) -> None:
    """Remove what processes that are dead left where they made what would be at the path."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.tmp-*"):
        process = left.name.rpartition("-")[2]
        if process.isdecimal() and not _is_alive(int(process)):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else _forget(left)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def _forget(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError:
        return
