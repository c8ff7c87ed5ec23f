"""Whatever a client sends: the run goes on, nothing of it enters the sum, and no more is allocated than was planned."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.io import to_bytes
from fedloom.aggregation.world import Start
from fedloom.engine.flower.exchange import HEADROOM, _reply, largest_answer
from fedloom.errors import ContributionRefusedError
from fedloom.rounds.assign import local_work
from fedloom.rounds.messages import Assignment, Contribution, Dropout, LocalWork
from fedloom.rounds.validate import validate
from fedloom.rounds.wire import FACTS, PROTOCOL, contribution_to_bytes
from fedloom.spec.experiment import Experiment
from fedloom.testing.engine import pretend_experiment

SHAPES = {"q": (12, 10), "v": (8, 10)}
RANK = 3
ROWS = 10


def factors(value: float = 1.0) -> Adapter:
    return Adapter(
        {
            name: Factors(torch.full((RANK, i), value), torch.full((o, RANK), value), 2.0)
            for name, (o, i) in SHAPES.items()
        }
    )


def assignment() -> Assignment:
    experiment: Experiment = pretend_experiment()
    work: LocalWork = local_work(experiment, 2)
    return Assignment("train", 2, "a", Start(factors()), dict.fromkeys(SHAPES, "ab"), {}, seed=1, work=work)


ASKED = assignment()
GOOD = contribution_to_bytes(Contribution(2, "a", ROWS, {"loss": 1.0}, factors(1.5)), ASKED.sends)


def taken(body: bytes) -> Contribution | None:
    """What would enter the sum; None if it is refused. Anything else than a refusal is a failure of the test."""
    answer = _reply(ASKED, 0, body, 0.0)
    if isinstance(answer, Dropout):
        assert answer.reason
        return None
    try:
        validate(answer.contribution, ASKED, rows=ROWS)
    except ContributionRefusedError:
        return None
    return answer.contribution


def test_what_is_meant_is_taken():
    assert taken(GOOD).adapter.digest() == factors(1.5).digest()


@given(cut=st.integers(0, len(GOOD) - 1))
def test_cut_short(cut):
    assert taken(GOOD[:cut]) is None


@settings(max_examples=300)
@given(at=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_any_changed_byte_is_refused_or_is_a_number_of_the_factors(at, value):
    """A changed number is within what a client may say; everything else is not."""
    changed = bytearray(GOOD)
    changed[at] = value
    found = taken(bytes(changed))
    if found is not None:
        assert found.examples <= ROWS
        assert {name: f.shape for name, f in found.adapter.items()} == SHAPES
        assert all(f.finite() for _, f in found.adapter.items())


@given(body=st.binary(max_size=300))
def test_noise(body):
    assert taken(body) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.dictionaries(
        st.sampled_from(["round", "client", "examples", "metrics", "protocol", "more"]), JSON, min_size=1, max_size=3
    )
)
def test_other_facts_are_refused_unless_they_are_the_same(changes):
    usual = {"protocol": PROTOCOL, "round": 2, "client": "a", "examples": ROWS, "metrics": {"loss": 1.0}}
    text = json.dumps({**usual, **changes})
    found = taken(to_bytes({"adapter": factors(1.5)}, {}, facts={FACTS: text}))
    if found is not None:
        assert (found.round, found.client) == (2, "a")
        assert type(found.examples) is int
        assert 0 < found.examples <= ROWS
        assert all(type(value) in (int, float) for value in found.metrics.values())


@pytest.mark.parametrize("rank", [0, 1, RANK + 1, 64])
def test_another_rank_is_refused(rank):
    wide = Adapter({name: Factors(torch.ones(rank, i), torch.ones(o, rank), 2.0) for name, (o, i) in SHAPES.items()})
    sent = contribution_to_bytes(Contribution(2, "a", ROWS, {}, wide), ASKED.sends)
    assert taken(sent) is None


@pytest.mark.parametrize("shape", [[-1, 4], [2**40, 2**20], [2**62, 2], [0, 0]])
@pytest.mark.parametrize("key", ["rank", "out", "in"])
def test_claimed_shapes_allocate_nothing(shape, key):
    """Sizes in the header that the bytes do not have."""
    text = GOOD.decode("latin-1")
    changed = text.replace(f'\\"{key}\\":{ {"rank": RANK, "out": 12, "in": 10}[key] }', f'\\"{key}\\":{shape[0]}')
    # The length of the safetensors header is in its first 8 bytes.
    grown = len(changed) - len(text)
    body = (int.from_bytes(GOOD[:8], "little") + grown).to_bytes(8, "little") + changed.encode("latin-1")[8:]
    tracemalloc.start()
    try:
        assert taken(body) is None or shape == [0, 0]
        assert tracemalloc.get_traced_memory()[1] < 10 * largest_answer(ASKED)
    finally:
        tracemalloc.stop()


def test_an_answer_has_room_for_its_numbers_and_not_for_many_more():
    assert len(GOOD) < largest_answer(ASKED)
    numbers = sum(RANK * (o + i) for o, i in SHAPES.values())
    assert largest_answer(ASKED) == 4 * numbers + HEADROOM


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_numbers_that_are_none_are_refused(value):
    assert taken(contribution_to_bytes(Contribution(2, "a", ROWS, {}, factors(value)), ASKED.sends)) is None


def test_another_client_or_round_is_refused():
    for changes in ({"client": "b"}, {"round": 1}, {"examples": ROWS + 1}):
        sent = replace(Contribution(2, "a", ROWS, {}, factors(1.5)), **changes)
        assert taken(contribution_to_bytes(sent, ASKED.sends)) is None
