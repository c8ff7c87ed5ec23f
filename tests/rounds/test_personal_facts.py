"""What is no mixing, or no borrowing, is refused where it arrives: half of it would train another model."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from fedloom.aggregation.world import Borrowing, Mixing
from fedloom.rounds.personal_facts import borrowing_of, mixing_of

MIXING = Mixing("static", 0.25, True, 2.0)
BORROWING = Borrowing(3, "factors", {"m": 17.0}, {"m": 2}, {"m": [17.0, 4]})


def test_what_is_one_is_read():
    assert mixing_of(asdict(MIXING)) == MIXING
    assert borrowing_of(asdict(BORROWING)) == BORROWING
    assert mixing_of(None) is borrowing_of(None) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "bogus"},
        {"share": "x"},
        {"share": 1.5},
        {"share": True},
        {"rate": None},
        {"rate": 0.0},
        {"rate": float("nan")},
        {"trains_rest": 1},
        {"unknown": 1},
    ],
)
def test_what_is_no_mixing_is_refused(wrong):
    with pytest.raises((ValueError, TypeError)):
        mixing_of({**asdict(MIXING), **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"round": "3"},
        {"combine": "bogus"},
        {"weights": None},
        {"weights": {"m": "x"}},
        {"weights": {"m": 0.0}},
        {"ranks": 3},
        {"ranks": {"m": 0}},
        {"ranks": {"m": 1.5}},
        {"owners": {"m": "ab"}},
        {"owners": {"m": [None]}},
        {"unknown": 1},
    ],
)
def test_what_is_no_borrowing_is_refused(wrong):
    with pytest.raises((ValueError, TypeError)):
        borrowing_of({**asdict(BORROWING), **wrong})
