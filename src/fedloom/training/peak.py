"""The most memory that was in use while something ran, as well as the machine can tell."""

from __future__ import annotations

import gc
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from fedloom.training.memory import release

How = Literal["high-water mark", "sampled", "allocated on the GPU"]
SAMPLE_EVERY = 0.002  # seconds
_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass
class Peak:
    """bytes: resident memory of the process, or what is allocated on the GPU; known when the block has ended.

    how: "high-water mark" is kept by the system and exact; "sampled" is the largest of samples 2 ms apart, where the
    system's mark cannot be set back (macOS, some containers): a shorter peak than that may be missed.
    """

    how: How
    bytes: int = 0


@contextmanager
def measured_peak(device: torch.device) -> Iterator[Peak]:
    """The peak of the block. What is free is given back before it, so that none counts that is not needed."""
    gc.collect()
    release()
    if device.type == "cuda":
        yield from _on_gpu(device)
    elif can_reset():
        yield from _by_mark()
    else:
        yield from _by_samples()


def can_reset() -> bool:
    """Set the system's mark of the most memory that this process had back to what it has now; whether that worked."""
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:
        return False
    return _high_water() is not None


def can_measure(device: torch.device) -> bool:
    """Whether `measured_peak` is exact, and costs no more than a moment: sampling would go on beside all the work."""
    return device.type == "cuda" or can_reset()


def peak_so_far() -> int:
    """The most resident memory that this process has had, in bytes, or had since it was set back."""
    unit = 1 if sys.platform == "darwin" else 1024
    return _high_water() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _high_water() -> int | None:
    """VmHWM in bytes."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return None if found is None else int(found) * 1024


def _by_mark() -> Iterator[Peak]:
    peak = Peak("high-water mark")
    yield peak
    peak.bytes = _high_water() or 0


def _by_samples() -> Iterator[Peak]:
    peak, process, over = Peak("sampled"), psutil.Process(), threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_EVERY):
            peak.bytes = max(peak.bytes, process.memory_info().rss)

    watcher = threading.Thread(target=sample, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()
        peak.bytes = max(peak.bytes, process.memory_info().rss)


def _on_gpu(device: torch.device) -> Iterator[Peak]:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    peak = Peak("allocated on the GPU")
    yield peak
    peak.bytes = torch.cuda.max_memory_allocated(device)
