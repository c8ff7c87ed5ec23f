"""Seconds and bytes of one call."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedloom.training.memory import release


def resident_bytes() -> int:
    """What the process holds, without free pages of the C library."""
    release()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most that the process held since `forget_peak`."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def timed(act: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = act()
    return time.perf_counter() - began, result


def measured(act: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    """The seconds and the memory that the call took, and its result."""
    before = resident_bytes()
    forget_peak()
    seconds, result = timed(act)
    return {"seconds": [seconds], "peak_bytes": max(0, peak_bytes() - before)}, result


def in_turns(repeats: int, *acts: Callable[[], Any], before: Callable[[], None] = lambda: None) -> list[list[float]]:
    """The seconds of every call, after one of each that does not count: whatever else the machine does hits all.

    before: done before every call, not timed.
    """
    for act in acts:
        act()

    def once(act: Callable[[], Any]) -> float:
        before()
        return timed(act)[0]

    seconds = [[once(act) for act in acts] for _ in range(repeats)]
    return [list(of_one) for of_one in zip(*seconds, strict=True)]
