"""Error feedback: over rounds the mean of what arrives is that of what was trained, and not so without it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import norm
from fedloom.adapters.factors import Factors
from fedloom.adapters.packing import Coding
from fedloom.aggregation.world import Start
from fedloom.errors import AdapterError
from fedloom.rounds import wire
from fedloom.rounds.feedback import LOST, NOTHING, RESIDUAL, as_it_arrives, from_tensors, offered, to_tensors
from fedloom.rounds.messages import Assignment, Contribution, Wire

OUT, IN, RANK, ROUNDS = 24, 40, 3, 40


def assignment(start, sides, format, residual=4.0, head=None):
    asked = Wire(Coding(format), Coding(format), residual)
    return Assignment("train", 1, "site", Start(start), dict.fromkeys(start, sides), head or {}, 0, wire=asked)


def answer(factors, head=None):
    return Contribution(1, "site", 5, {"loss": 1.0}, Adapter({"m": factors}), head or {})


def drawn(draws, *shape, size=1.0):
    return size * torch.randn(*shape, generator=draws)


def fixed(draws, sides):
    """The same start and the same change in every round."""
    a, b = drawn(draws, RANK, IN), drawn(draws, OUT, RANK, size=0.5)
    to_a, to_b = drawn(draws, RANK, IN, size=0.1), drawn(draws, OUT, RANK, size=0.1)
    while True:
        yield Factors(a, b, 2.0), Factors(a + to_a * ("a" in sides), b + to_b * ("b" in sides), 2.0)


def fresh(draws, sides):
    """Other directions in every round, from nothing, as flora has them, and as much of a change as before."""
    while True:
        a, b = drawn(draws, RANK, IN), torch.zeros(OUT, RANK)
        yield Factors(a, b, 2.0), Factors(a + drawn(draws, RANK, IN, size=0.1), drawn(draws, OUT, RANK), 2.0)


def exchanged(rounds, sides, format, *, feedback, residual=100.0):
    """(what was trained, what arrived, summed up; what is owed in the end, and its norm round by round)"""
    trained = arrived = torch.zeros(OUT, IN)
    owed, norms = NOTHING, []
    for _, (start, after) in zip(range(ROUNDS), rounds, strict=False):
        asked = assignment(Adapter({"m": start}), sides, format, residual)
        sent, left = offered(asked, answer(after), owed if feedback else NOTHING)
        trained = trained + after.delta() - start.delta()
        arrived = arrived + as_it_arrives(asked, sent).adapter["m"].delta() - start.delta()
        owed, norms = left, [*norms, sent.metrics[RESIDUAL]]
    return trained / ROUNDS, arrived / ROUNDS, owed, norms


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sides", ["b", "a", "ab"])
def test_the_mean_of_a_constant_change_arrives_with_feedback_and_not_without(sides, seed):
    found = {}
    for feedback in (True, False):
        rounds = fixed(torch.Generator().manual_seed(seed), sides)
        trained, arrived, _, _ = exchanged(rounds, sides, "int4", feedback=feedback)
        found[feedback] = float((arrived - trained).norm() / trained.norm())
    assert found[False] > 0.05, "four bits lose a tenth, the same tenth in every round"
    assert found[True] < 0.01
    assert found[True] < 0.1 * found[False]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.sampled_from(["b", "a", "ab"]), st.sampled_from(["bfloat16", "int8", "int4"]))
def test_nothing_is_lost_what_did_not_arrive_is_owed(seed, sides, format):
    rounds = fixed(torch.Generator().manual_seed(seed), sides)
    trained, arrived, owed, norms = exchanged(rounds, sides, format, feedback=True)
    missing = ROUNDS * (trained - arrived)
    assert torch.allclose(missing, owed.delta["m"].delta(), atol=1e-3)
    assert norms[-1] < 2 * norms[0], "what is owed stays bounded"


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_where_every_round_trains_other_directions(seed):
    rounds = fresh(torch.Generator().manual_seed(seed), "ab")
    trained, arrived, owed, norms = exchanged(rounds, "ab", "int4", feedback=True)
    assert torch.allclose(ROUNDS * (trained - arrived), owed.delta["m"].delta(), atol=1e-3)
    assert max(norms[ROUNDS // 2 :]) < 1.5 * max(norms[: ROUNDS // 2]), "and what is owed stays bounded"


def test_what_is_more_than_is_kept_is_measured():
    rounds = fresh(torch.Generator().manual_seed(0), "ab")
    (start, after), wide = next(rounds), 100.0
    sent, left = {}, {}
    for residual in (1.0, wide):
        asked = assignment(Adapter({"m": start}), "ab", "int4", residual)
        sent[residual], left[residual] = offered(asked, answer(after), NOTHING)
    assert left[1.0].delta["m"].rank == RANK < left[wide].delta["m"].rank <= 2 * RANK
    assert sent[wide].metrics[LOST] == pytest.approx(0.0, abs=1e-6)
    whole, kept, lost = norm(left[wide].delta), norm(left[1.0].delta), sent[1.0].metrics[LOST]
    assert lost > 0.05 * whole
    assert kept**2 + lost**2 == pytest.approx(whole**2, rel=1e-4)


def test_float32_is_sent_as_it_was_trained_and_owes_nothing():
    start, after = next(fixed(torch.Generator().manual_seed(0), "ab"))
    trained = answer(after)
    sent, owed = offered(assignment(Adapter({"m": start}), "ab", "float32"), trained, NOTHING)
    assert sent is trained
    assert owed is NOTHING


@pytest.mark.parametrize("format", ["bfloat16", "int8", "int4"])
@pytest.mark.parametrize("sides", ["b", "a", "ab"])
def test_what_the_client_thinks_arrives_is_what_is_read(sides, format):
    start, after = next(fixed(torch.Generator().manual_seed(0), sides))
    head = {"score.weight": torch.zeros(3, 5)}
    asked = assignment(Adapter({"m": start}), sides, format, head=head)
    sent, _ = offered(asked, answer(after, {"score.weight": torch.randn(3, 5)}), NOTHING)
    expected = as_it_arrives(asked, sent)
    data = wire.contribution_to_bytes(sent, asked.sends, asked=asked)
    found = wire.contribution_from_bytes(data, start=asked.start.trainable, head=head)
    assert found.adapter.digest() == expected.adapter.digest()
    assert torch.equal(found.head["score.weight"], expected.head["score.weight"])
    assert found.adapter.digest() != sent.adapter.digest()
    assert found.metrics == sent.metrics


def test_a_head_is_paid_number_by_number():
    head, change = {"score.weight": torch.ones(3, 5)}, torch.linspace(-1, 1, 15).reshape(3, 5)
    start, after = next(fixed(torch.Generator().manual_seed(0), "ab"))
    asked = assignment(Adapter({"m": start}), "ab", "int4", head=head)
    trained = answer(after, {"score.weight": head["score.weight"] + change})
    owed, arrived = NOTHING, torch.zeros(3, 5)
    once = as_it_arrives(asked, offered(asked, trained, NOTHING)[0]).head["score.weight"] - head["score.weight"]
    for _ in range(ROUNDS):
        sent, owed = offered(asked, trained, owed)
        arrived = arrived + as_it_arrives(asked, sent).head["score.weight"] - head["score.weight"]
    assert (arrived / ROUNDS - change).norm() < 0.1 * (once - change).norm()


def test_what_is_owed_survives_being_kept():
    start, after = next(fixed(torch.Generator().manual_seed(0), "ab"))
    head = {"score.weight": torch.zeros(3, 5)}
    asked = assignment(Adapter({"m": start}), "ab", "int4", head=head)
    _, owed = offered(asked, answer(after, {"score.weight": torch.randn(3, 5)}), NOTHING)
    again = from_tensors({**to_tensors(owed), "m|b": torch.ones(2)})
    assert again.delta.digest() == owed.delta.digest()
    assert torch.equal(again.head["score.weight"], owed.head["score.weight"])


def test_what_is_not_finite_is_refused():
    start, after = next(fixed(torch.Generator().manual_seed(0), "ab"))
    wild = replace(after, b=after.b / 0)
    with pytest.raises(AdapterError, match="cannot be packed"):
        offered(assignment(Adapter({"m": start}), "ab", "int4"), answer(wild), NOTHING)


def test_what_is_owed_of_a_module_that_is_trained_no_more_is_said_to_be_lost():
    start, after = next(fresh(torch.Generator().manual_seed(1), "ab"))
    asked = assignment(Adapter({"m": start}), "ab", "int4", 100.0)
    sent, owed = offered(asked, answer(after), NOTHING)
    assert sent.metrics[LOST] == pytest.approx(0.0, abs=1e-6)
    elsewhere = replace(owed, delta=Adapter({"gone": owed.delta["m"]}))
    sent, left = offered(asked, answer(after), elsewhere)
    assert "gone" not in left.delta
    assert sent.metrics[LOST] == pytest.approx(norm(owed.delta))
