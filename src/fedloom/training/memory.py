"""Memory that is free inside the process goes back to the system."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys


def release() -> None:
    """Hand freed pages back where the C library can (glibc), so that a process with many clients does not creep up.

    Activations of ever different lengths leave holes in the heap that are never reused: without this, resident memory
    grew with every client that trained.
    """
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(ctypes.util.find_library("c") or "libc.so.6")
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
