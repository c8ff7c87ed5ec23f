"""What stays at a client over the rounds of a run: through stops, dropouts, refusals, absence and lost files."""

import shutil
from dataclasses import replace

import pytest
import torch

from fedloom.adapters.factors import Factors
from fedloom.aggregation.registry import METHODS
from fedloom.engine.drive import drive
from fedloom.engine.forming import PLACE
from fedloom.engine.keeping import own_model
from fedloom.engine.whole_run import digest_of
from fedloom.errors import RunError
from fedloom.rounds.messages import Dropout
from fedloom.spec.experiment import ServerTable
from fedloom.store.client_store import ClientStore
from fedloom.testing.engine import NAMES, PretendEngine
from fedloom.testing.engine import pretend_experiment as experiment_of

MODULE = "layers.0.q_proj"


def models(loop, state):
    clients = [client for client in loop.clients if client in state.last_rounds]
    root = loop.directory.clients
    return {client: own_model(loop.method, loop.world, state, client, root) for client in clients}


def digest(loop, state):
    return digest_of(state, models(loop, state))


def kept(loop, client, round):
    return ClientStore(loop.directory.clients / client).load(round)[f"{MODULE}|b"]


def kinds(loop, kind):
    return [record for record in loop.records() if record["kind"] == kind]


class KilledError(Exception):
    """The process ends here."""


def dying(client, round):
    """After this client has trained and kept its part, before anything of it arrives."""

    def change(assignment, contribution):
        if (assignment.client, assignment.round, assignment.kind) == (client, round, "train"):
            raise KilledError
        return contribution

    return change


def dropping(client, *rounds):
    def change(assignment, contribution):
        gone = assignment.client == client and assignment.kind == "train" and assignment.round in rounds
        return Dropout(assignment.round, client, "lost") if gone else contribution

    return change


@pytest.fixture
def undisturbed(make_loop):
    loop = make_loop(experiment_of("fedsa"), name="undisturbed")
    return digest(loop, drive(loop))


def test_clients_differ_and_go_on_from_what_they_kept(make_loop):
    starts = {}

    def watch(assignment, contribution):
        if assignment.kind == "train":
            starts[assignment.client, assignment.round] = contribution
        return contribution

    loop = make_loop(experiment_of("fedsa"), PretendEngine(NAMES, change=watch, step=0.0))
    state = drive(loop)
    assert not any(kept(loop, client, 4).any() for client in NAMES), "without steps b stays as it was dispatched"
    again = make_loop(experiment_of("fedsa"), PretendEngine(NAMES, change=watch), name="moving")
    state = drive(again)
    own = models(again, state)
    assert len({start.digest() for start in own.values()}) == 3
    for round in (2, 3, 4):
        grown = (kept(again, "c", round) - kept(again, "c", round - 1)).norm() / kept(again, "c", 1).norm()
        assert 0.5 < float(grown) < 2, "one step away from the round before"
    assert torch.equal(own["c"].trainable[MODULE].b, kept(again, "c", 4))
    assert torch.equal(own["c"].trainable[MODULE].a, state.learned.shared[MODULE].a[:3])


def test_the_server_has_no_b_and_the_wire_carries_none(make_loop):
    loop = make_loop(experiment_of("fedsa"))
    state = drive(loop)
    assert all(kept(loop, client, 4).any() for client in NAMES)
    assert not any(factors.b.any() for factors in state.learned.shared.values())


def test_half_of_the_traffic_is_spared_in_both_directions(make_loop):
    tall = PretendEngine(NAMES, modules={MODULE: (500, 50)})
    loops = [make_loop(experiment_of(method), tall, name=method) for method in ("fedsa", "rbla")]
    for loop in loops:
        drive(loop)
    for kind, first in (("bytes_up", 1), ("bytes_down", 2)):
        mine, theirs = (
            sum(record[kind] for record in kinds(loop, "contribution") if record["round"] >= first) for loop in loops
        )
        assert mine < 0.4 * theirs, "b is ten times a here; headers and the head are the rest"


@pytest.mark.parametrize("client", ["a", "c"])
@pytest.mark.parametrize("round", [1, 3])
def test_a_round_that_was_begun_when_the_process_died_is_trained_again_from_before(
    client, round, make_loop, undisturbed
):
    experiment = experiment_of("fedsa")
    loop = make_loop(experiment, PretendEngine(NAMES, change=dying(client, round)), name="killed")
    with pytest.raises(KilledError):
        drive(loop)
    assert round in ClientStore(loop.directory.clients / client).rounds(), "the file of the round was written"
    loop.directory.close()
    again = make_loop(experiment, name="killed")
    assert digest(again, drive(again)) == undisturbed


def test_a_client_that_is_gone_after_the_process_died_goes_on_from_the_round_that_counted(make_loop):
    """Its file of round 3 belongs to an attempt that nobody committed."""
    experiment = experiment_of("fedsa", rounds={"min_clients": 1})
    plain = make_loop(experiment, PretendEngine(NAMES, change=dropping("a", 3)), name="plain")
    expected = digest(plain, drive(plain))
    killed = make_loop(experiment, PretendEngine(NAMES, change=dying("b", 3)), name="killed")
    with pytest.raises(KilledError):
        drive(killed)
    assert ClientStore(killed.directory.clients / "a").rounds() == [1, 2, 3]
    killed.directory.close()
    again = make_loop(experiment, PretendEngine(NAMES, change=dropping("a", 3)), name="killed")
    assert digest(again, drive(again)) == expected


def test_a_refused_contribution_leaves_its_client_where_it_was(make_loop):
    def poison(assignment, contribution):
        if (assignment.client, assignment.round, assignment.kind) != ("b", 3, "train"):
            return contribution
        bad = contribution.adapter.map(lambda _, f: Factors(f.a * float("nan"), f.b, f.scaling))
        return replace(contribution, adapter=bad)

    refused, absent = (
        make_loop(experiment_of("fedsa", rounds={"min_clients": 1}), PretendEngine(NAMES, change=change), name=name)
        for name, change in (("refused", poison), ("absent", dropping("b", 3)))
    )
    assert digest(refused, drive(refused)) == digest(absent, drive(absent))
    assert ClientStore(refused.directory.clients / "b").rounds() == [1, 2, 4]


def test_an_absent_client_goes_on_from_its_last_file(make_loop):
    experiment = experiment_of("fedsa", rounds={"min_clients": 1})
    loop = make_loop(experiment, PretendEngine(NAMES, change=dropping("a", 2, 3)))
    state = drive(loop)
    assert state.last_rounds == {"a": 4, "b": 4, "c": 4}
    assert ClientStore(loop.directory.clients / "a").rounds() == [1, 4]
    steps = (kept(loop, "a", 4) - kept(loop, "a", 1)).norm() / kept(loop, "a", 1).norm()
    assert 0.3 < float(steps) < 3, "one step, not the start anew"
    assert not torch.allclose(kept(loop, "a", 4), kept(loop, "a", 4) - kept(loop, "a", 1))


def test_rounds_that_were_moved_away_are_trained_again(make_loop, undisturbed):
    first = make_loop(experiment_of("fedsa"), name="back")
    drive(first)
    first.directory.close()
    for round in (3, 4):
        shutil.rmtree(first.directory.path / "rounds" / f"{round:04d}")
    again = make_loop(experiment_of("fedsa"), name="back")
    assert digest(again, drive(again)) == undisturbed


def test_each_client_is_measured_with_its_own_model(make_loop):
    measured = {}

    def watch(assignment, contribution):
        if assignment.kind == "evaluate":
            measured[assignment.round, assignment.client] = contribution.metrics["loss"]
        return contribution

    loop = make_loop(experiment_of("fedsa"), PretendEngine(NAMES, change=watch))
    state = drive(loop)
    expected = {client: PretendEngine(NAMES).loss_of(model.delta()) for client, model in models(loop, state).items()}
    assert {client: measured[4, client] for client in NAMES} == pytest.approx(expected)
    assert len(set(expected.values())) == 3
    assert [measured[0, client] for client in NAMES] == pytest.approx([1.0] * 3), "the base, before round 1"


def test_a_client_that_lost_what_it_kept_says_so_and_does_not_begin_anew(make_loop):
    experiment = experiment_of("fedsa", rounds={"min_clients": 1})
    first = make_loop(experiment, name="lost", last_round=2)
    drive(first)
    first.directory.close()
    shutil.rmtree(first.directory.clients / "b")
    again = make_loop(experiment, name="lost")
    with pytest.raises(RunError, match=r"b/0002.*round 2.*cannot be read.*from a copy"):
        drive(again)


def test_without_a_place_nothing_is_trained(make_loop):
    loop = make_loop(experiment_of("fedsa"))
    homeless = replace(loop, engine=replace(loop.engine, store=None))
    with pytest.raises(RunError, match=r"client 'a'.*no place"):
        drive(homeless)


def test_a_client_that_took_no_part_has_no_model_to_take_home(make_loop):
    loop = make_loop(
        experiment_of("fedsa", rounds={"min_clients": 1}), PretendEngine(NAMES, change=dropping("b", 1, 2, 3, 4))
    )
    state = drive(loop)
    with pytest.raises(RunError, match=r"client 'b' has no model of its own yet .expected .*a, c"):
        own_model(loop.method, loop.world, state, "b", loop.directory.clients)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_server_optimizer_moves_a_and_survives_a_stop(optimizer, make_loop, undisturbed):
    experiment = experiment_of("fedsa").model_copy(update={"server": ServerTable(optimizer=optimizer)})
    whole = make_loop(experiment, name="whole")
    expected = digest(whole, drive(whole))
    assert expected != undisturbed
    first = make_loop(experiment, name="stopped", last_round=2)
    drive(first)
    first.directory.close()
    again = make_loop(experiment, name="stopped")
    assert digest(again, drive(again)) == expected


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.personal])
def test_other_methods_leave_nothing_at_a_client(method, make_loop):
    loop = make_loop(experiment_of(method), last_round=1)
    drive(loop)
    there = loop.directory.clients.iterdir() if loop.directory.clients.exists() else ()
    assert {entry.name for entry in there} <= {PLACE}, "only what the server sent, and all clients have alike"
