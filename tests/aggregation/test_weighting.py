"""Weights count as shares of those present."""

import pytest

from fedloom.aggregation.weighting import checked_weights, shares
from fedloom.errors import AggregationError


def test_shares_add_up_to_one_in_sorted_order():
    found = shares({"z": 3, "a": 1, "idle": 0})
    assert list(found.items()) == [("a", 0.25), ("z", 0.75)]


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        ({"a": -1.0, "b": 2.0}, "weight of 'a'.*negative"),
        ({"a": 1.0, "b": float("nan")}, "weight of 'b'.*finite"),
        ({"a": float("inf")}, "weight of 'a'.*finite"),
        ({"a": 0.0}, "add up to nothing"),
        ({}, "add up to nothing"),
        ({"a": None}, "weight of 'a'"),
        ({"a": True}, "weight of 'a'"),
    ],
)
def test_weights_that_do_not_count_are_refused(weights, complaint):
    with pytest.raises(AggregationError, match=complaint):
        checked_weights(weights)
