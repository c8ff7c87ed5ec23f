"""Bytes that are on the disk when the call returns: the only place with fsync, rename and locks."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from fedloom.adapters.io import number_of
from fedloom.errors import RunError

LOCK_BYTES = 32
NOTHING_CHANGED = "The run is as it was"


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a whole file and wait until the disk has it. mode: of a new file, from its first moment."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, also where the system takes it in parts."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_directory(path: Path) -> None:
    """Wait until the disk has the names in a directory."""
    _sync(path, os.O_DIRECTORY)


def make_directory(path: Path) -> None:
    """A directory, and its name on the disk: without that a file in it could be gone after a power cut."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_directory(each.parent)


def sync_tree(path: Path) -> None:
    """Wait until the disk has all names and all bytes below a directory."""
    for entry in path.rglob("*"):
        _sync(entry)
    sync_directory(path)


def sync_file(path: Path) -> None:
    """Wait until the disk has what somebody else wrote into a file."""
    _sync(path)


def _sync(path: Path, flags: int = 0) -> None:
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(unfinished: Path, final: Path) -> None:
    """Give a finished file or directory its name, all at once."""
    os.rename(unfinished, final)
    sync_directory(final.parent)


def cannot_write(error: Exception, path: Path, *, needed_bytes: int, intact: str, again: str = "resume") -> RunError:
    """What to tell about a write that failed. intact: what is still sound.  again: what to do once it is repaired."""
    number = number_of(error)
    if number not in (errno.ENOSPC, errno.EDQUOT):
        do = f"{intact}. Repair the cause, then {again}"
        return RunError("cannot be written", where=path, found=os.strerror(number) if number else error, do=do)
    return RunError(
        "the disk is full",
        where=path,
        expected=f"{needed_bytes} bytes free",
        found=f"{free_bytes(path.parent)} bytes free",
        do=f"{intact}. Make room, then {again}",
    )


def free_bytes(directory: Path) -> int:
    """Bytes that may still be written to the file system of a directory, or of its nearest parent that exists."""
    while not directory.exists():
        directory = directory.parent
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def lock(path: Path, what: str = "the run is in use") -> int:
    """Take the exclusive lock of a file, which ends with the process; returns its descriptor for `unlock`.

    Raises: RunError with `what` and the holder's process id if another process has it, or if it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise cannot_write(error, path, needed_bytes=LOCK_BYTES, intact=NOTHING_CHANGED) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, LOCK_BYTES, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        own = holder == str(os.getpid())
        do = "Close the RunDirectory that has it" if own else "Wait until it has ended, or end it"
        found = f"process {holder}" + (" (this one)" if own else "")
        raise RunError(what, where=path.parent, found=found, do=do) from error
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise cannot_write(error, path, needed_bytes=LOCK_BYTES, intact=NOTHING_CHANGED) from error
    return descriptor


def in_use(path: Path) -> bool:
    """Whether a process has the lock of a file; one that is not there nobody has."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def unlock(descriptor: int) -> None:
    """Give a lock back."""
    os.close(descriptor)
