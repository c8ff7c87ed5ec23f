"""Messages survive the wire bit for bit, and frozen factors do not travel."""

from dataclasses import replace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.aggregation.local_rules import Penalty
from fedloom.errors import AdapterError
from fedloom.rounds import wire


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


def test_another_protocol_is_named(assignment, monkeypatch):
    monkeypatch.setattr(wire, "PROTOCOL", 99)
    data = wire.assignment_to_bytes(assignment)
    monkeypatch.undo()
    with pytest.raises(AdapterError, match="protocol version"):
        wire.assignment_from_bytes(data)


def test_bytes_that_are_no_message_are_refused():
    with pytest.raises(AdapterError):
        wire.assignment_from_bytes(b"not a message")
