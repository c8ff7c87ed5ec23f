"""The peak of a block is that of the block, however it is read."""

import sys
import time

import pytest
import torch

from fedloom.training import peak
from fedloom.training.peak import measured_peak

LARGE = 60_000_000
CPU = torch.device("cpu")


@pytest.fixture(params=["high-water mark", "sampled"])
def how(request, monkeypatch, tmp_path):
    if request.param == "sampled":
        monkeypatch.setattr(peak, "_RESET", tmp_path / "no" / "clear_refs")
    elif not (sys.platform.startswith("linux") and peak.can_reset()):
        pytest.skip("this system's mark cannot be set back")
    return request.param


def test_memory_that_was_taken_within_counts_and_earlier_memory_does_not(how):
    before = bytes(LARGE)
    del before
    with measured_peak(CPU) as little:
        time.sleep(0.05)
    with measured_peak(CPU) as much:
        taken = bytearray(LARGE)
        for page in range(0, LARGE, 4096):
            taken[page] = 1
        time.sleep(0.05)
        del taken
    assert little.how == much.how == how
    assert little.bytes + 0.8 * LARGE < much.bytes < little.bytes + 1.5 * LARGE


def test_an_error_within_comes_out(how):
    with pytest.raises(RuntimeError, match="within"), measured_peak(CPU):
        raise RuntimeError("within")


def test_the_peak_so_far_is_at_least_what_is_there():
    assert peak.peak_so_far() > 20_000_000
