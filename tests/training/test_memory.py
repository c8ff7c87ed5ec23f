"""Freed memory goes back to the system."""

import sys
from pathlib import Path

import pytest

from fedloom.training.memory import release


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_holes_in_the_heap_are_handed_back():
    blocks = [bytes(60_000) for _ in range(2000)]
    keep = blocks[::2]
    before = resident_bytes()
    del blocks
    release()
    assert resident_bytes() < before - 30_000_000
    assert len(keep) == 1000
