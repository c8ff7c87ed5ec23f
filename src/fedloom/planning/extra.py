"""scipy, which brings the solver HiGHS: only planning needs it."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedloom.errors import PlanError

STDOUT = 1


def optimizers() -> Any:
    """scipy.optimize. Raises: PlanError where it is not installed."""
    try:
        import scipy.optimize as found
    except ImportError as error:
        raise PlanError(
            "planning needs a package that is not installed",
            found=str(error),
            do="Install it: pip install 'fedloom[plan]'",
        ) from error
    return found


@contextmanager
def silenced() -> Iterator[None]:
    """Nothing that C code prints gets out meanwhile.

    HiGHS up to 1.12 writes a line of its developers to the process's output, whatever its options say (its issue 2783);
    it would stand in the midst of a table, or of JSON. Not on Windows, whose C library is another.
    """
    if sys.platform == "win32":
        yield
        return
    library, kept = ctypes.CDLL(None), os.dup(STDOUT)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        library.fflush(None)
        os.dup2(nowhere, STDOUT)
        yield
    finally:
        library.fflush(None)
        os.dup2(kept, STDOUT)
        os.close(kept)
        os.close(nowhere)
