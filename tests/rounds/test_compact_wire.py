"""Packed messages: the server's model is never rounded, and what cannot change travels once."""

import json
from dataclasses import replace

import pytest
import torch

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.factors import Factors
from fedloom.adapters.io import to_bytes
from fedloom.adapters.packing import rounded
from fedloom.aggregation.registry import METHODS, method
from fedloom.errors import AdapterError, RunError
from fedloom.rounds import wire
from fedloom.rounds.assign import evaluation_assignments, training_assignments
from fedloom.rounds.contribute import going_on, kept_part
from fedloom.rounds.messages import Contribution, Wire
from fedloom.rounds.state import RunState
from fedloom.rounds.world import world_of
from fedloom.spec.experiment import MethodTable, WireTable

COMPACT = {"up": "int4", "down": "int8"}
MODULE = "layers.0.q_proj"
ANSWER = {"protocol": wire.PROTOCOL, "round": 1, "client": "site-a", "examples": 5, "metrics": {}}


@pytest.fixture
def asked(experiment, world):
    """asked(method, last_round, **wire): what site-a is asked in the round after."""

    def make(name, last_round=0, **formats):
        chosen = method(name)
        wanted = experiment.model_copy(
            update={"method": MethodTable(name=name), "wire": WireTable(**(formats or COMPACT))}
        )
        its_world = world_of(wanted, world.modules)
        learned = replace(chosen.init(its_world), rounds=last_round)
        state = RunState(learned, {"score.weight": torch.randn(2, 8)}, {"site-a": last_round} if last_round else {})
        return next(iter(training_assignments(wanted, chosen, its_world, state, ["site-a"])))

    return make


def unmoved(received):
    """A client that learned nothing."""
    return Contribution(received.round, received.client, 5, {}, received.start.trainable, received.head)


def at_the_server(assignment, data):
    return wire.contribution_from_bytes(data, start=assignment.start.trainable, head=assignment.head)


def test_the_formats_arrive(asked):
    received = wire.assignment_from_bytes(wire.assignment_to_bytes(asked("flora", up="int4", down="int8", block=32)))
    formats = (received.wire.up.format, received.wire.down.format, received.wire.up.block, received.wire.residual)
    assert formats == ("int4", "int8", 32, 4.0)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "fedit"])
def test_a_client_that_learned_nothing_gives_the_servers_start_and_not_the_rounded_one(asked, name):
    assignment = asked(name, up="int4", down="int4")
    received = wire.assignment_from_bytes(wire.assignment_to_bytes(assignment))
    sent = wire.contribution_to_bytes(unmoved(received), received.sends, asked=received)
    assert at_the_server(assignment, sent).adapter.digest() == assignment.start.trainable.digest()
    assert torch.equal(at_the_server(assignment, sent).head["score.weight"], assignment.head["score.weight"])
    assert not torch.equal(received.head["score.weight"], assignment.head["score.weight"])
    if not any(assignment.constant.values()) and not assignment.resumes:  # a start that is sent once is sent exactly
        assert received.start.trainable.digest() != assignment.start.trainable.digest(), "it was rounded"


def test_a_float32_answer_to_a_rounded_start_is_a_change_too(asked):
    assignment = asked("flora", up="float32", down="int4")
    received = wire.assignment_from_bytes(wire.assignment_to_bytes(assignment))
    step = received.start.trainable.map(lambda _, f: Factors(f.a + 0.25, f.b + 0.5, f.scaling))
    sent = replace(unmoved(received), adapter=step)
    found = at_the_server(assignment, wire.contribution_to_bytes(sent, received.sends, asked=received)).adapter
    assert torch.allclose(found[MODULE].a - assignment.start.trainable[MODULE].a, torch.tensor(0.25), atol=1e-6)


def test_an_exact_wire_is_the_one_of_before(asked):
    """The bytes of the factors as they are, whether or not the assignment is at hand."""
    assignment = asked("flora", up="float32", down="float32")
    assert assignment.wire == Wire()
    assert not assignment.needs_store
    assert not any(asked("ffa", up="float32", down="float32").constant.values())
    received = wire.assignment_from_bytes(wire.assignment_to_bytes(assignment))
    assert received.start.trainable.digest() == assignment.start.trainable.digest()
    sent = unmoved(received)
    data = wire.contribution_to_bytes(sent, received.sends, asked=received)
    assert data == wire.contribution_to_bytes(sent, received.sends)
    assert sent.adapter[MODULE].a.numpy().tobytes() in data


def test_a_frozen_a_travels_once_and_as_it_is(asked):
    first, later = asked("ffa"), asked("ffa", 3)
    assert first.constant == later.constant == dict.fromkeys(first.start.trainable, "a")
    arrived = wire.assignment_from_bytes(wire.assignment_to_bytes(first))
    sent, read = (one.start.trainable[MODULE] for one in (first, arrived))
    assert torch.equal(read.a, sent.a), "what is sent once is not rounded"
    assert torch.equal(read.b, rounded(sent.b.T, first.wire.down).T), "what is sent each time is"
    kept = kept_part(arrived, arrived.start.trainable)
    assert set(kept) == {f"{module}|a" for module in first.start.trainable}
    again = wire.assignment_to_bytes(later)
    assert later.start.trainable[MODULE].a.numpy().tobytes() not in again
    blank = wire.assignment_from_bytes(again)
    assert torch.isnan(blank.start.trainable[MODULE].a).all()
    filled = going_on(blank, kept).start.trainable
    assert torch.equal(filled[MODULE].a, later.start.trainable[MODULE].a)


def test_another_frozen_a_is_refused_and_a_lost_one_is_named(asked):
    later = wire.assignment_from_bytes(wire.assignment_to_bytes(asked("ffa", 3)))
    kept = kept_part(asked("ffa"), asked("ffa").start.trainable)
    with pytest.raises(RunError, match=r"not those of the server.*site-a|site-a.*not those of the server"):
        going_on(later, {**kept, f"{MODULE}|a": kept[f"{MODULE}|a"] + 1e-3})
    with pytest.raises(RunError, match=r"a that this client kept does not fit"):
        going_on(later, {})


def test_methods_that_train_a_side_in_some_round_have_nothing_constant(asked):
    for name in METHODS:
        if name not in ("ffa", "fedit"):
            assert not any(asked(name).constant.values()), name


def test_evaluation_travels_in_the_same_format(experiment, world):
    wanted = experiment.model_copy(update={"wire": WireTable(down="int4")})
    bank = Adapter({MODULE: Factors(torch.randn(3, 8), torch.randn(6, 3))})
    state = RunState(replace(method("flora").init(world), trunk=bank), {})
    asked = next(iter(evaluation_assignments(wanted, method("flora"), world, state, ["site-a"])))
    assert not asked.needs_store
    trunk = wire.assignment_from_bytes(wire.assignment_to_bytes(asked)).start.trunk
    assert trunk.digest() != bank.digest()
    assert (trunk[MODULE].delta() - bank[MODULE].delta()).norm() < 0.3 * bank[MODULE].delta().norm()


@pytest.mark.parametrize(
    ("change", "head", "match"),
    [
        ({MODULE: Factors(torch.ones(9, 8), torch.ones(6, 9))}, {}, "the change does not fit the start"),
        ({MODULE: Factors(torch.ones(3, 7), torch.ones(6, 3))}, {}, "the change does not fit the start"),
        ({}, {"score.weight": torch.ones(2, 9)}, "the change of the head does not fit"),
        ({}, {"other": torch.ones(2, 8)}, "the change of the head does not fit"),
    ],
)
def test_a_change_of_another_shape_is_refused(asked, change, head, match):
    facts = {"message": json.dumps(ANSWER)}
    data = to_bytes({"change": Adapter(change)}, head, facts=facts)
    with pytest.raises(AdapterError, match=match):
        at_the_server(asked("flora"), data)


@pytest.mark.parametrize("name", ["neither", "trunk"])
def test_bytes_of_another_message_are_refused(asked, name):
    facts = {"message": json.dumps(ANSWER | {"more": 1})}
    data = to_bytes({name: Adapter()}, {}, facts=facts)
    with pytest.raises(AdapterError, match="no contribution"):
        at_the_server(asked("flora"), data)
    with pytest.raises(AdapterError, match="no assignment"):
        wire.assignment_from_bytes(data)
