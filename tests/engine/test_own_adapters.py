"""Clients that go on from their own adapter and borrow from the others: through the whole loop, without a model."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from fedloom.adapters.algebra import cosine, distance, norm
from fedloom.engine.drive import drive
from fedloom.engine.keeping import own_model
from fedloom.engine.whole_run import digest_of
from fedloom.errors import RunError
from fedloom.rounds.messages import Dropout
from fedloom.spec.experiment import MethodTable, WireTable
from fedloom.spec.secure_table import SecureAggregationTable
from fedloom.store.client_store import ClientStore
from fedloom.testing.engine import NAMES, PretendEngine, pretend_experiment


def experiment_of(secure=False, rounds=None, **settings):
    table = {"max_update_norm": 100.0} if secure else {}
    experiment = pretend_experiment("fedalt", rounds={**table, **(rounds or {})})
    update = {"method": MethodTable.model_validate({"name": "fedalt", **settings})}
    if secure:
        update["secure_aggregation"] = SecureAggregationTable(enabled=True)
    return experiment.model_copy(update=update)


def models(loop, state):
    clients = [client for client in loop.clients if client in state.last_rounds]
    return {client: own_model(loop.method, loop.world, state, client, loop.directory.clients) for client in clients}


def mean_of_others(models, client):
    """Dense, in float64: the mean delta of all but one client; all have ten rows."""
    others = [start.trainable for name, start in models.items() if name != client]
    modules = others[0].keys()
    return {module: sum(other[module].delta().double() for other in others) / len(others) for module in modules}


def absent(names, round):
    def change(assignment, contribution):
        gone = assignment.kind == "train" and assignment.client in names and assignment.round == round
        return Dropout(round, assignment.client, "away") if gone else contribution

    return change


@pytest.mark.parametrize("secure", [False, True])
def test_what_is_borrowed_is_the_mean_of_the_others_at_the_clients_rank(make_loop, secure):
    loop = make_loop(experiment_of(secure), PretendEngine(NAMES))
    own = models(loop, drive(loop))
    for rank, (client, start) in enumerate(own.items(), 1):
        wanted = mean_of_others(own, client)
        for module, factors in start.rest.items():
            left = torch.linalg.svdvals(wanted[module])[rank:].square().sum().sqrt()
            missed = (factors.delta().double() - wanted[module]).norm()
            assert factors.rank <= rank
            assert float(missed) == pytest.approx(float(left), abs=1e-4 * float(wanted[module].norm()))


def test_a_secure_run_ends_with_the_models_of_an_open_one(make_loop):
    ends = []
    for secure in (False, True):
        loop = make_loop(experiment_of(secure), name=f"secure-{secure}")
        ends.append(models(loop, drive(loop)))
    for client, start in ends[0].items():
        assert distance(start.rest, ends[1][client].rest) <= 1e-4 * norm(start.rest)
        assert distance(start.trainable, ends[1][client].trainable) <= 1e-4 * norm(start.trainable)


def test_factors_are_averaged_as_in_the_paper_where_ranks_are_equal(make_loop):
    experiment = experiment_of(combine="factors")
    equal = tuple(client.model_copy(update={"rank": 2}) for client in experiment.clients)
    loop = make_loop(experiment.model_copy(update={"clients": equal}))
    own = models(loop, drive(loop))
    for client, start in own.items():
        others = [other.trainable for name, other in own.items() if name != client]
        for module, factors in start.rest.items():
            for side in "ab":
                scale = others[0][module].scaling if side == "b" else 1.0
                mean = scale * sum(getattr(other[module], side) for other in others) / len(others)
                assert torch.allclose(getattr(factors, side), mean, atol=1e-5)


def test_in_the_first_round_there_is_nothing_to_borrow_and_later_mixers_go_on(make_loop):
    starts = {}

    def watch(assignment, contribution):
        if assignment.kind == "train":
            starts[assignment.client, assignment.round] = assignment
        return contribution

    drive(make_loop(experiment_of(), PretendEngine(NAMES, change=watch)))
    first = starts["a", 1].start
    assert not first.rest
    assert not first.mixers
    assert first.delta().digest() == first.trainable.digest(), "the own branch counts whole"
    assert not starts["a", 2].start.mixers
    assert starts["a", 2].start.rest
    assert starts["a", 3].start.mixers
    steps = [float(starts["a", round].memory.get("steps", torch.zeros(()))) for round in (1, 2, 3, 4)]
    assert steps == [0.0, 10.0, 20.0, 30.0], "the optimizer goes on where it was"


def test_mixers_and_optimizer_stay_on_the_clients_disk_and_never_travel(make_loop):
    received = []

    class Listening(PretendEngine):
        def exchange(self, assignments):
            for answer in super().exchange(assignments):
                received.append(answer)
                yield answer

    loop = make_loop(experiment_of(), Listening(NAMES))
    drive(loop)
    assert all(not reply.assignment.start.mixers for reply in received)
    assert all(not reply.assignment.memory for reply in received)
    kept = ClientStore(loop.directory.clients / "b").load(4)
    assert {name.split("|")[0] for name in kept} > {"mixer", "memory"}


def test_the_own_factors_are_sent_down_only_once(make_loop):
    sizes = {}

    class Listening(PretendEngine):
        def exchange(self, assignments):
            for answer in super().exchange(assignments):
                if answer.assignment.kind == "train":
                    sizes[answer.assignment.client, answer.assignment.round] = answer.bytes_down
                yield answer

    drive(make_loop(experiment_of(mixer="static"), Listening(NAMES)))
    # From round 2 on the rest of the world comes in the place of the first start: as many numbers, not twice as many.
    assert sizes["c", 3] < sizes["c", 1] + 1500


def begins_from_the_rest(start):
    """However it mixes."""
    for share in (0.2, 0.9):
        mixture = start.delta(dict.fromkeys(start.trainable, share))
        assert distance(mixture, start.rest) <= 1e-5 * norm(start.rest), share


def test_a_client_that_comes_late_begins_from_the_rest_of_the_world(make_loop):
    starts = {}

    def watch(assignment, contribution):
        if assignment.kind == "train":
            starts[assignment.client, assignment.round] = assignment.start
        return absent({"c"}, 1)(assignment, contribution)

    loop = make_loop(experiment_of(), PretendEngine(NAMES, change=watch))
    drive(loop)
    late = starts["c", 2]
    begins_from_the_rest(late)
    assert late.trainable.ranks == starts["c", 1].trainable.ranks
    assert all(bool(factors.a.any(dim=1).all()) for factors in late.trainable.values()), "no direction is dead"


def test_a_client_that_comes_late_to_secure_sums_begins_from_the_mean_of_the_others(make_loop):
    starts = {}

    def watch(assignment, contribution):
        if assignment.kind == "train":
            starts[assignment.client, assignment.round] = assignment.start
        return absent({"c"}, 1)(assignment, contribution)

    experiment = experiment_of(secure=True)
    secure = SecureAggregationTable(enabled=True, threshold=2)
    loop = make_loop(experiment.model_copy(update={"secure_aggregation": secure}), PretendEngine(NAMES, change=watch))
    drive(loop)
    late = starts["c", 2]
    assert norm(late.rest) > 0
    begins_from_the_rest(late)


def test_absent_clients_last_contributions_count_until_they_are_too_old(make_loop):
    for age, counts in ((None, True), (0, False)):
        settings = {} if age is None else {"max_age": age}
        engine = PretendEngine(NAMES, change=absent({"a"}, 4))
        loop = make_loop(experiment_of(**settings), engine, name=f"age-{age}")
        own = models(loop, drive(loop))
        with_a = mean_of_others(own, "c")
        module = next(iter(with_a))
        alone = own["b"].trainable[module].delta().double()
        wanted = with_a[module] if counts else alone
        found = own["c"].rest[module].delta().double()
        assert (found - wanted).norm() <= 1e-4 * wanted.norm(), age


def test_what_is_borrowed_stays_between_two_refreshes(make_loop):
    rests = {}

    def watch(assignment, contribution):
        if assignment.kind == "train" and assignment.client == "a":
            rests[assignment.round] = assignment.start.rest.digest()
        return contribution

    drive(make_loop(experiment_of(refresh=2), PretendEngine(NAMES, change=watch)))
    assert rests[2] == rests[3] != rests[4]


def test_a_resumed_run_ends_with_the_same_digest(make_loop):
    whole = make_loop(experiment_of(), name="whole")
    state = drive(whole)
    half = make_loop(experiment_of(), name="half", last_round=2)
    drive(half)
    del half
    again = make_loop(experiment_of(), name="half")
    other = drive(again)
    assert digest_of(other, models(again, other)) == digest_of(state, models(whole, state))
    assert whole.directory.latest() == again.directory.latest() == 4


def test_the_error_of_what_compression_leaves_out_is_in_the_journal(make_loop):
    loop = make_loop(experiment_of())
    drive(loop)
    committed = [record for record in loop.records() if record["kind"] == "round_committed"]
    assert 0 < committed[-1]["details"]["rest_error"] < 1


def test_a_client_whose_mixer_was_changed_says_so(make_loop):
    experiment = experiment_of()
    drive(make_loop(experiment, name="changed", last_round=2))
    loop = make_loop(experiment, name="changed")
    store = ClientStore(loop.directory.clients / "b")
    tensors = store.load(2)
    name = next(name for name in tensors if name.startswith("mixer|"))
    store.save(2, {**tensors, name: torch.zeros(2, 1)})
    with pytest.raises(RunError, match=r"client 'b', round 2.*mixer that this client kept does not fit"):
        drive(loop)


def test_how_alike_clients_are_is_in_the_journal_and_in_the_summary(make_loop):
    loop = make_loop(experiment_of())
    state = drive(loop)
    own = models(loop, state)
    records = [record for record in loop.records() if record["kind"] == "similarity"]
    assert [record["round"] for record in records] == [1, 2, 3, 4]
    last = records[-1]
    assert last["clients"] == list(NAMES)
    for row, one in enumerate(NAMES):
        assert sum(last["shares"][row]) == pytest.approx(1.0, abs=1e-3)
        for column, other in enumerate(NAMES):
            wanted = 1.0 if one == other else cosine(own[one].trainable, own[other].trainable)
            assert last["cosines"][row][column] == pytest.approx(wanted, abs=1e-3)
    assert loop.method.name == "fedalt"
    secure = make_loop(experiment_of(secure=True), name="secure")
    drive(secure)
    assert not [record for record in secure.records() if record["kind"] == "similarity"]


def test_clients_borrow_from_their_nearest_neighbours_alone(make_loop):
    loop = make_loop(experiment_of(neighbours=1))
    own = models(loop, drive(loop))
    for client, start in own.items():
        others = [name for name in NAMES if name != client]
        nearest = max(others, key=lambda name: cosine(own[client].trainable, own[name].trainable))
        assert cosine(start.rest, own[nearest].trainable) > 0.5
        farthest = next(name for name in others if name != nearest)
        assert cosine(start.rest, own[nearest].trainable) > 2 * abs(cosine(start.rest, own[farthest].trainable))


@pytest.mark.parametrize("method", ["fedalt", "fedsa"])
def test_what_a_lost_server_knows_nothing_of_is_set_aside_and_not_lost(method, make_loop):
    first = make_loop(pretend_experiment(method), name="first")
    drive(first)
    anew = make_loop(pretend_experiment(method), name="anew")
    shutil.copytree(first.directory.clients, anew.directory.clients, dirs_exist_ok=True)
    drive(anew)
    for client in NAMES:
        kept = ClientStore(anew.directory.clients / client)
        assert kept.rounds() == [1, 2, 3, 4]
        assert ClientStore(kept.directory / "earlier-0001").rounds() == [1, 2, 3, 4]
    assert not list(first.directory.clients.rglob("earlier-*"))


def test_a_client_that_is_not_there_after_a_restart_still_weighs(make_loop):
    """What it trained counts by its rows, though it has not described itself to the new server."""

    class WithoutC(PretendEngine):
        def describe(self):
            found = super().describe()
            return replace(found, rows={name: rows for name, rows in found.rows.items() if name != "c"})

    drive(make_loop(experiment_of(), name="restarted", last_round=2))
    engine = WithoutC(NAMES, change=absent({"c"}, 3))
    loop = make_loop(experiment_of(), engine, name="restarted", last_round=3)
    drive(loop)
    last = [record for record in loop.records() if record["kind"] == "similarity"][-1]
    assert last["round"] == 3
    assert last["weights"] == [10.0, 10.0, 10.0]


def test_nobody_has_a_share_in_what_is_not_borrowed_from_it(make_loop):
    loop = make_loop(experiment_of(neighbours=1), name="near")
    drive(loop)
    last = [record for record in loop.records() if record["kind"] == "similarity"][-1]
    for own, (cosines, shares) in enumerate(zip(last["cosines"], last["shares"], strict=True)):
        nearest = max((place for place in range(len(NAMES)) if place != own), key=lambda place: cosines[place])
        assert shares == [1.0 if place == nearest else 0.0 for place in range(len(NAMES))]
    loop = make_loop(experiment_of(max_age=0), PretendEngine(NAMES, change=absent({"a"}, 4)), name="old")
    drive(loop)
    last = [record for record in loop.records() if record["kind"] == "similarity"][-1]
    assert last["weights"] == [0.0, 10.0, 10.0]
    assert [row[0] for row in last["shares"]] == [0.0, 0.0, 0.0]
    assert last["shares"][1:] == [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize("late", [(), ("c",)])
def test_compact_messages_down_leave_server_and_client_with_the_same_adapter(late, make_loop):
    """What a client begins from is sent once: rounded, it would differ from the server's ever after."""
    experiment = experiment_of().model_copy(update={"wire": WireTable(down="int8")})
    loop = make_loop(experiment, PretendEngine(NAMES, change=absent(late, 1)))
    own = models(loop, state := drive(loop))
    for client, adapter in state.learned.clients.items():
        for module, factors in adapter.items():
            for side in "ab":
                kept = getattr(own[client].trainable[module], side)
                assert torch.allclose(getattr(factors, side), kept, atol=1e-6)


def test_what_sums_are_divided_by_is_no_detail_of_a_round(make_loop):
    """Of rank 1 there is one weight of a rank index: no number about the round, as errors are."""
    experiment = experiment_of(secure=True, combine="factors")
    alike = tuple(client.model_copy(update={"rank": 1}) for client in experiment.clients)
    loop = make_loop(experiment.model_copy(update={"clients": alike}))
    drive(loop)
    committed = [record for record in loop.records() if record["kind"] == "round_committed"]
    assert [record["details"] for record in committed] == [{}] * 4
