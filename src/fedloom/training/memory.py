"""Memory that is free inside the process goes back to the system; how much a process may take."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from pathlib import Path

import psutil
import torch

CONTROL_GROUP = Path("/sys/fs/cgroup")


def release() -> None:
    """Hand freed pages back where the C library can (glibc), so that a process with many clients does not creep up.

    Activations of ever different lengths leave holes in the heap that are never reused: without this, resident memory
    grew with every client that trained.
    """
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(ctypes.util.find_library("c") or "libc.so.6")
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)


def available_bytes(device: torch.device | None = None) -> int:
    """What a process may still take: of the GPU, or of the machine within the limit of its container."""
    if device is not None and device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free, limit = int(psutil.virtual_memory().available), _limit()
    return free if limit is None else max(0, min(free, limit - _used()))


def total_bytes(device: torch.device | None = None) -> int:
    """Of the GPU, or of the machine within the limit of its container."""
    if device is not None and device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    whole, limit = int(psutil.virtual_memory().total), _limit()
    return whole if limit is None else min(whole, limit)


def _limit() -> int | None:
    """Of the control group (v2) of this process; None outside one, or without a limit."""
    text = _read("memory.max").strip()
    return int(text) if text.isdecimal() else None


def _used() -> int:
    """What the control group has, without copies of files, which make way."""
    files = [line.split()[1] for line in _read("memory.stat").splitlines() if line.startswith("inactive_file ")]
    return int(_read("memory.current").strip() or 0) - int(files[0] if files else 0)


def _read(name: str) -> str:
    try:
        return (CONTROL_GROUP / name).read_text(encoding="ascii")
    except OSError:
        return ""
