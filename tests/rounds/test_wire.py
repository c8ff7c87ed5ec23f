"""Messages survive the wire bit for bit, and frozen factors do not travel."""

from dataclasses import replace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.local_rules import Penalty
from fedloom.aggregation.registry import method
from fedloom.errors import AdapterError
from fedloom.rounds import wire
from fedloom.rounds.assign import training_assignments
from fedloom.rounds.messages import Contribution
from fedloom.rounds.state import RunState


def moved(assignment) -> Contribution:
    """What a client answers after moving both sides."""
    adapter = assignment.start.trainable.map(lambda _, f: Factors(f.a + 0.5, f.b + 0.25, f.scaling))
    return Contribution(assignment.round, assignment.client, 5, {"loss": 1.0}, adapter)


def test_an_assignment_survives(assignment):
    again = wire.assignment_from_bytes(wire.assignment_to_bytes(assignment))
    assert again.start.trainable.digest() == assignment.start.trainable.digest()
    assert again.start.trunk.digest() == assignment.start.trunk.digest()
    assert torch.equal(again.head["score.weight"], assignment.head["score.weight"])
    for name in ("kind", "round", "client", "trains", "seed", "work", "generate_rows"):
        assert getattr(again, name) == getattr(assignment, name)


def test_penalties_and_pruning_survive(assignment):
    work = replace(assignment.work, penalties=(Penalty("tail", 0.1, 0.9), Penalty("proximal", 2.0)), prune=0.9)
    again = wire.assignment_from_bytes(wire.assignment_to_bytes(replace(assignment, work=work)))
    assert again.work == work


def test_a_contribution_survives(contribution, assignment):
    data = wire.contribution_to_bytes(contribution, assignment.trains)
    again = wire.contribution_from_bytes(data, start=assignment.start.trainable)
    assert again.adapter.digest() == contribution.adapter.digest()
    assert (again.round, again.client, again.examples) == (1, "site-a", 5)
    assert again.metrics == contribution.metrics


def test_frozen_factors_do_not_travel(contribution, assignment):
    start = assignment.start.trainable
    only_b = Adapter({name: Factors(start[name].a, f.b, f.scaling) for name, f in contribution.adapter.items()})
    sent = replace(contribution, adapter=only_b)
    whole = wire.contribution_to_bytes(sent, dict.fromkeys(start, "ab"))
    half = wire.contribution_to_bytes(sent, dict.fromkeys(start, "b"))
    spared = sum(4 * factors.a.numel() for factors in start.values())
    assert len(whole) - len(half) > 0.9 * spared
    assert wire.contribution_from_bytes(half, start=start).adapter.digest() == only_b.digest()


@pytest.fixture
def personal(experiment, world):
    """(assignment of a method whose clients keep b, in round 1 and in round 3 of a client that counted in round 2)."""
    fedsa = method("fedsa")
    state = RunState(fedsa.init(world))
    later = replace(state, learned=replace(state.learned, rounds=2), last_rounds={"site-a": 2})
    return [next(iter(training_assignments(experiment, fedsa, world, now, ["site-a"]))) for now in (state, later)]


def test_what_is_kept_travels_out_once_and_is_nan_until_it_is_filled_in(personal):
    first, later = personal
    assert (first.kept_round, later.kept_round) == (0, 2)
    assert first.keeps == later.keeps == dict.fromkeys(first.start.trainable, "b")
    once, again = (wire.assignment_to_bytes(assignment) for assignment in personal)
    b_bytes = sum(4 * factors.b.numel() for factors in first.start.trainable.values())
    assert len(once) - len(again) > 0.9 * b_bytes
    assert wire.assignment_from_bytes(once).start.trainable.digest() == first.start.trainable.digest()
    arrived = wire.assignment_from_bytes(again)
    assert (arrived.keeps, arrived.kept_round) == (later.keeps, 2)
    for module, factors in arrived.start.trainable.items():
        assert torch.equal(factors.a, later.start.trainable[module].a)
        assert factors.b.shape == later.start.trainable[module].b.shape
        assert torch.isnan(factors.b).all()


def test_a_trunk_travels_whole_beside_kept_factors(personal):
    later = personal[1]
    trunk = later.start.trainable.map(lambda _, f: Factors(f.a, torch.ones_like(f.b), f.scaling))
    asked = replace(later, start=replace(later.start, trunk=trunk))
    assert wire.assignment_from_bytes(wire.assignment_to_bytes(asked)).start.trunk.digest() == trunk.digest()


def test_what_is_kept_does_not_travel_back(personal):
    asked = personal[1]
    assert asked.sends == dict.fromkeys(asked.start.trainable, "a")
    sent = moved(asked)
    data = wire.contribution_to_bytes(sent, asked.sends)
    found = wire.contribution_from_bytes(data, start=asked.start.trainable).adapter
    for module, factors in found.items():
        assert torch.equal(factors.a, sent.adapter[module].a)
        assert torch.equal(factors.b, asked.start.trainable[module].b)
        assert sent.adapter[module].b.numpy().tobytes() not in data


def test_another_protocol_is_named(assignment, monkeypatch):
    monkeypatch.setattr(wire, "PROTOCOL", 99)
    data = wire.assignment_to_bytes(assignment)
    monkeypatch.undo()
    with pytest.raises(AdapterError, match="protocol version"):
        wire.assignment_from_bytes(data)


def test_bytes_that_are_no_message_are_refused():
    with pytest.raises(AdapterError):
        wire.assignment_from_bytes(b"not a message")


def test_the_optimizer_of_a_head_travels_where_it_is_not_the_usual_one(assignment):
    asked = replace(assignment, work=replace(assignment.work, head_optimizer="layerwise"))
    assert wire.assignment_from_bytes(wire.assignment_to_bytes(asked)).work == asked.work
    assert b"head_optimizer" not in wire.assignment_to_bytes(assignment)


def test_importance_travels_only_where_it_is_measured(assignment, contribution):
    scores = dict.fromkeys(assignment.start.trainable, 0.1 + 0.2 / 3)
    asked = replace(assignment, work=replace(assignment.work, importance=1 / 3))
    assert wire.assignment_from_bytes(wire.assignment_to_bytes(asked)).work == asked.work
    data = wire.contribution_to_bytes(replace(contribution, importance=scores), asked.sends)
    assert wire.contribution_from_bytes(data, start=asked.start.trainable).importance == scores
    for plain in (
        wire.assignment_to_bytes(assignment),
        wire.contribution_to_bytes(contribution, assignment.sends),
    ):
        assert b"importance" not in plain


@pytest.mark.parametrize(
    "wrong",
    [{"round": "2"}, {"kept_round": "1"}, {"kept_round": True}, {"kept_round": -1}, {"seed": 0.5}, {"kind": "delete"}],
)
def test_an_assignment_with_a_fact_of_another_kind_is_refused(assignment, wrong):
    data = wire.assignment_to_bytes(replace(assignment, **wrong))
    with pytest.raises(AdapterError, match="hold no assignment"):
        wire.assignment_from_bytes(data)


def test_the_head_of_a_ledger_travels_where_there_is_one(assignment, contribution):
    data = wire.contribution_to_bytes(replace(contribution, ledger="ab" * 32), assignment.sends)
    assert wire.contribution_from_bytes(data, start=assignment.start.trainable).ledger == "ab" * 32
    assert b'"ledger' not in wire.contribution_to_bytes(contribution, assignment.sends).replace(b"\\", b"")
