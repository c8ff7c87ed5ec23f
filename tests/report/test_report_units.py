"""Numbers as people read them."""

import math

import pytest

from fedloom.report.better import best
from fedloom.report.units import bytes_text, change_text, loss_text, number_text, plural, score_text, seconds_text


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (bytes_text(0), "0 B"),
        (bytes_text(999), "999 B"),
        (bytes_text(1000), "1.00 kB"),
        (bytes_text(27_840_000), "27.8 MB"),
        (bytes_text(999_700), "1.00 MB"),
        (bytes_text(5e15), "5000 TB"),
        (seconds_text(4.21), "4.2 s"),
        (seconds_text(59.96), "1 min 00 s"),
        (seconds_text(187), "3 min 07 s"),
        (seconds_text(7_500), "2 h 05 min"),
        (loss_text(2.3456), "2.346"),
        (loss_text(math.nan), "nan"),
        (score_text(0.1234), "12.3"),
        (change_text(3.2, 2.5), "−0.700"),
        (change_text(0.1, 0.25, 100, 1), "+15.0"),
        (number_text(12345), "12,345"),
        (number_text(0.00132), "0.00132"),
        (plural(1, "client"), "1 client"),
        (plural(0, "client"), "0 clients"),
    ],
)
def test_numbers(shown, text):
    assert shown == text


@pytest.mark.parametrize("text", [bytes_text, seconds_text, loss_text, score_text, number_text])
def test_what_was_not_measured_is_a_dash(text):
    assert text(None) == "–"


@pytest.mark.parametrize(
    ("values", "direction", "expected"),
    [
        ({"a": 1.0, "b": 2.0}, "lower", {"a"}),
        ({"a": 1.0, "b": 2.0}, "higher", {"b"}),
        ({"a": 1.0, "b": 2.0, "c": 1.0}, "lower", {"a", "c"}),
        ({"a": 1.0001, "b": 1.0002}, "lower", set()),
        ({"a": 1.0, "b": None}, "lower", set()),
        ({"a": math.nan, "b": 2.0, "c": 3.0}, "lower", {"b"}),
        ({}, "lower", set()),
    ],
)
def test_the_best_is_what_reads_as_best(values, direction, expected):
    assert best(values, direction, decimals=3) == expected
