"""Whole runs on a compact wire: what clients owe survives kills, absence and refusals, and runs end alike."""

import pytest
import torch

from fedloom.aggregation.registry import METHODS
from fedloom.engine.drive import drive
from fedloom.engine.keeping import own_model
from fedloom.engine.whole_run import digest_of
from fedloom.errors import RunError
from fedloom.rounds.feedback import NOTHING
from fedloom.rounds.messages import Dropout
from fedloom.spec.experiment import WireTable
from fedloom.store.client_store import ClientStore
from fedloom.testing.engine import NAMES, PretendEngine, pretend_experiment

MODULE = "layers.0.q_proj"


class KilledError(Exception):
    """The process ends here."""


def experiment_of(method, up="int4", down="int8", **more):
    return pretend_experiment(method, **more).model_copy(update={"wire": WireTable(up=up, down=down)})


def digest(loop, state):
    """Of the state, and of each client's own model where it has one."""
    root = loop.directory.clients
    own = (
        {name: own_model(loop.method, loop.world, state, name, root) for name in state.last_rounds}
        if loop.method.personal
        else {}
    )
    return digest_of(state, own)


def acting(client, round, act):
    def change(assignment, contribution):
        mine = (assignment.client, assignment.round, assignment.kind) == (client, round, "train")
        return act(assignment, contribution) if mine else contribution

    return change


def die(assignment, contribution):
    raise KilledError


def drop(assignment, contribution):
    return Dropout(assignment.round, assignment.client, "lost")


def owed(loop, client, round):
    kept = ClientStore(loop.directory.clients / client).load(round)
    return {name: tensor for name, tensor in kept.items() if name.startswith("owed")}


def contributions(loop, **wanted):
    records = [record for record in loop.records() if record["kind"] == "contribution"]
    return [record for record in records if all(record[name] == value for name, value in wanted.items())]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_and_says_what_is_owed(method, make_loop):
    loop = make_loop(experiment_of(method))
    drive(loop)
    assert len(contributions(loop)) == 12
    assert all(record["wire_residual"] > 0 and record["wire_lost"] >= 0 for record in contributions(loop))
    assert not any("wire_forgotten" in record.fields for record in contributions(loop))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("client", ["a", "c"])
def test_killed_after_a_client_put_away_what_it_owes_it_ends_with_the_same_digest(method, client, make_loop):
    experiment = experiment_of(method)
    plain = make_loop(experiment, name="plain")
    expected = digest(plain, drive(plain))
    loop = make_loop(experiment, PretendEngine(NAMES, change=acting(client, 3, die)), name="killed")
    with pytest.raises(KilledError):
        drive(loop)
    assert 3 in ClientStore(loop.directory.clients / client).rounds()
    loop.directory.close()
    again = make_loop(experiment, name="killed")
    assert digest(again, drive(again)) == expected


@pytest.mark.parametrize("method", ["loom", "ffa", "fedsa"])
def test_a_round_that_did_not_count_leaves_no_debt(method, make_loop, monkeypatch):
    """Client a trains round 3, and its answer is lost: in round 4 it pays what it owed after round 2."""
    read, load = [], ClientStore.load
    monkeypatch.setattr(
        ClientStore, "load", lambda store, round: read.append((store.directory.name, round)) or load(store, round)
    )
    experiment = experiment_of(method, rounds={"min_clients": 1})
    loop = make_loop(experiment, PretendEngine(NAMES, change=acting("a", 3, drop)), stages=frozenset())
    drive(loop)
    assert [record["round"] for record in contributions(loop, client="a")] == [1, 2, 4]
    assert ClientStore(loop.directory.clients / "a").rounds() == [1, 2, 4]
    assert sorted({round for client, round in read if client == "a"}) == [1, 2], "never what it put away in round 3"
    assert sorted({round for client, round in read if client == "b"}) == [1, 2, 3]


def test_feedback_makes_the_difference(make_loop, monkeypatch):
    """Without what is owed another run comes out, further from the exact one."""
    exact = drive(make_loop(experiment_of("ffa", up="float32", down="float32"), name="exact")).learned.delta()
    fed = drive(make_loop(experiment_of("ffa", down="float32"), name="fed")).learned.delta()
    monkeypatch.setattr("fedloom.engine.keeping.from_tensors", lambda _: NOTHING)
    bare = drive(make_loop(experiment_of("ffa", down="float32"), name="bare")).learned.delta()

    def error(adapter):
        return float(sum((adapter[m].delta() - exact[m].delta()).norm() for m in exact))

    assert 0 < error(fed) < 0.8 * error(bare)


def test_what_is_owed_is_of_the_round_it_is_kept_for(make_loop):
    loop = make_loop(experiment_of("loom"))
    drive(loop)
    for client in NAMES:
        rounds = [owed(loop, client, round) for round in (1, 2, 3, 4)]
        assert all(rounds)
        assert not torch.equal(rounds[0][f"owed|b|{MODULE}"], rounds[1][f"owed|b|{MODULE}"])


def test_a_client_that_lost_what_it_owed_says_so_and_goes_on(make_loop):
    loop = make_loop(experiment_of("loom"), last_round=2)
    drive(loop)
    (loop.directory.clients / "b" / "0002.safetensors").unlink()
    loop.directory.close()
    again = make_loop(experiment_of("loom"))
    drive(again)
    told = [record for record in contributions(again) if "wire_forgotten" in record.fields]
    assert [(record["client"], record["round"]) for record in told] == [("b", 3)]


def test_a_client_that_lost_the_frozen_a_says_what_to_put_back(make_loop):
    loop = make_loop(experiment_of("ffa", rounds={"min_clients": 1}), last_round=2)
    drive(loop)
    (loop.directory.clients / "b" / "0002.safetensors").unlink()
    loop.directory.close()
    again = make_loop(experiment_of("ffa", rounds={"min_clients": 1}))
    with pytest.raises(RunError, match=r"round 2 cannot be read.*Put the client's directory back"):
        drive(again)


@pytest.mark.parametrize("method", ["fedit", "ffa", "loom", "flora"])
def test_a_quarter_of_the_bytes_and_the_journal_says_so(method, make_loop):
    wide = PretendEngine(NAMES, modules={MODULE: (400, 300)})
    loops = [
        make_loop(experiment_of(method, up=format, down=format), wide, name=format) for format in ("int4", "float32")
    ]
    for loop in loops:
        drive(loop)
    for direction in ("bytes_up", "bytes_down"):
        compact, plain = (sum(r[direction] for r in contributions(loop, round=4)) for loop in loops)
        assert compact < 0.4 * plain, "headers are much of such small messages"
