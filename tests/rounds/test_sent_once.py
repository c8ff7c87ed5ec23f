"""What is sent once, beside what is sent each time."""

from dataclasses import replace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.packing import Coding
from fedloom.aggregation.world import Start
from fedloom.errors import AdapterError
from fedloom.rounds.messages import Assignment, Wire
from fedloom.rounds.sent_once import sent_each_time, sent_once, with_once
from fedloom.rounds.wire import assignment_from_bytes, assignment_to_bytes

START = Adapter({"q": Factors(torch.randn(8, 256), torch.zeros(256, 8))})
FIRST = Assignment(
    kind="train",
    round=1,
    client="site-a",
    start=Start(START),
    trains={"q": "b"},
    head={},
    seed=1,
    constant={"q": "a"},
    wire=Wire(down=Coding("int4")),
)


@pytest.mark.parametrize(
    ("assignment", "once", "each"),
    [
        (FIRST, "a", "b"),
        (replace(FIRST, resumes=True), "ab", ""),
        (replace(FIRST, kept_round=1), "", "b"),
        (replace(FIRST, wire=Wire()), "", "ab"),
        (replace(FIRST, constant={}), "", "ab"),
    ],
)
def test_each_side_travels_in_one_of_the_two(assignment, once, each):
    found = sent_once(assignment)
    assert (found.get("q", ""), sent_each_time(assignment, found)["q"]) == (once, each)


def test_a_first_assignment_is_as_long_as_an_exact_a_and_a_packed_b():
    side = 8 * 256 * 4
    length, later = (len(assignment_to_bytes(one)) for one in (FIRST, replace(FIRST, kept_round=1)))
    assert side < length - later < side + 500, "the exact a is all that it has more"
    assert later < side / 7 + 1500


def test_it_arrives_in_its_place():
    arrived = assignment_from_bytes(assignment_to_bytes(FIRST)).start.trainable["q"]
    assert torch.equal(arrived.a, START["q"].a)
    assert torch.equal(arrived.b, START["q"].b)


@pytest.mark.parametrize("once", [Factors(torch.ones(7, 256), torch.ones(256, 7)), None])
def test_another_shape_or_none_is_refused(once):
    with pytest.raises((AdapterError, KeyError)):
        with_once(FIRST, Adapter({} if once is None else {"q": once}))
