"""Clients that join, leave, or are asked in reserve: who trains, who is measured, and what the journal says."""

from __future__ import annotations

import itertools

import pytest

import fedloom
from fedloom.engine.drive import drive
from fedloom.rounds.messages import Dropout
from fedloom.rounds.roster import drawn
from fedloom.spec.experiment import ClientTable
from fedloom.testing.engine import NAMES, PretendEngine, pretend_experiment
from fedloom.testing.federation import tiny_federation
from tests.some import mostly_slow

METHODS = ("loom", "fedit", "flora", "ffa", "fedsa", "fedalt")
MANY = tuple(f"c{number}" for number in range(8))


def kinds(loop, *kinds):
    return [record for record in loop.directory.journal.records() if record["kind"] in kinds]


def coming(method="loom", **times):
    """times: client -> its joins and leaves."""
    experiment = pretend_experiment(method)
    clients = [client.model_copy(update=times.get(client.name, {})) for client in experiment.clients]
    return experiment.model_copy(update={"clients": tuple(clients)})


def many(over_selection=0.5, participation=0.5, **rounds):
    experiment = pretend_experiment("fedit", rounds={"participation": participation, **rounds})
    clients = tuple(ClientTable(name=name, rank=2, data="none.jsonl") for name in MANY)
    table = experiment.rounds.model_copy(update={"over_selection": over_selection})
    return experiment.model_copy(update={"clients": clients, "rounds": table})


@pytest.mark.parametrize("method", mostly_slow(METHODS, "loom", "fedsa"))
def test_clients_train_and_are_measured_while_they_are_there(method, make_loop):
    loop = make_loop(coming(method, a={"joins": 3}, b={"leaves": 3}))
    assert drive(loop).round == 4
    took_part = {record["round"]: record["participants"] for record in kinds(loop, "round_started")}
    assert took_part == {1: ["b", "c"], 2: ["b", "c"], 3: ["a", "c"], 4: ["a", "c"]}
    measured = {(each["round"], each["client"]) for each in kinds(loop, "evaluation")}
    assert {client for round, client in measured if round <= 2} == {"b", "c"}
    assert {client for round, client in measured if round >= 3} == {"a", "c"}
    assert not kinds(loop, "dropout", "refused")


def test_the_journal_says_who_joined_left_and_is_away(make_loop):
    loop = make_loop(coming(a={"joins": 3}, b={"leaves": 4}))
    drive(loop)
    said = [{word: record.get(word) for word in ("away", "joined", "left")} for record in kinds(loop, "round_started")]
    assert said == [
        {"away": ["a"], "joined": None, "left": None},
        {"away": ["a"], "joined": None, "left": None},
        {"away": None, "joined": ["a"], "left": None},
        {"away": ["b"], "joined": None, "left": ["b"]},
    ]


def test_a_run_goes_on_to_the_same_state_after_a_stop_in_between(make_loop):
    experiment = coming(a={"joins": 3}, b={"leaves": 3})
    whole = drive(make_loop(experiment, name="whole")).learned.delta().digest()
    stopped = make_loop(experiment, name="parts", last_round=2)
    drive(stopped)
    stopped.directory.close()
    assert drive(make_loop(experiment, name="parts")).learned.delta().digest() == whole


def test_rows_of_a_client_that_joins_are_trained_on_and_its_baseline_is_made(tmp_path):
    config = tiny_federation(tmp_path, ranks=(2, 1), rounds=2)
    text = config.read_text().replace('name = "site-1"', 'name = "site-1"\njoins = 2')
    config.write_text(text.replace("[evaluation]", "[evaluation]\nbaselines = true"))
    result = fedloom.run(fedloom.load(config), root=tmp_path / "runs")
    sent = {client.name: client.contributions for client in result.summary.clients}
    assert sent == {"site-0": 2, "site-1": 1}
    assert set(result.summary.alone.clients) == {"site-0", "site-1"}


def test_reserves_are_the_last_of_the_draw_and_do_not_change_the_first():
    for round in range(1, 6):
        more, none = drawn(many(), round), drawn(many(over_selection=None), round)
        assert len(none) == 4
        assert len(more) == 6
        assert more[:4] == none


def test_who_is_not_needed_is_late_and_does_not_train(make_loop):
    trained = []

    def watch(assignment, contribution):
        trained.append((assignment.kind, assignment.round, assignment.client))
        return contribution

    loop = make_loop(many(), PretendEngine(MANY, change=watch))
    drive(loop)
    for round in (1, 2, 3, 4):
        order = drawn(loop.experiment, round)
        assert [client for kind, number, client in trained if (kind, number) == ("train", round)] == list(order[:4])
        assert [each["client"] for each in kinds(loop, "late") if each["round"] == round] == list(order[4:])
    assert {record["wanted"] for record in kinds(loop, "round_started")} == {4}
    assert {record["contributions"] for record in kinds(loop, "round_committed")} == {4}


@pytest.mark.parametrize("together", [False, True])
def test_a_reserve_comes_in_for_a_dropout_and_for_a_refusal(together, make_loop):
    experiment = many()
    first, second = drawn(experiment, 1)[:2]

    def fail(assignment, contribution):
        if (assignment.kind, assignment.round) != ("train", 1) or assignment.client not in (first, second):
            return contribution
        if assignment.client == first:
            return Dropout(1, first, "it broke")
        return type(contribution)(1, second, 10**6, {}, contribution.adapter, contribution.head)

    loop = make_loop(experiment, PretendEngine(MANY, change=fail, together=together), last_round=1)
    drive(loop)
    assert [record["client"] for record in kinds(loop, "dropout")] == [first]
    assert [record["client"] for record in kinds(loop, "refused")] == [second]
    assert not kinds(loop, "late")
    assert [record["contributions"] for record in kinds(loop, "round_committed")] == [4]
    assert len({(e["stage"], e["round"], e["client"]) for e in kinds(loop, "evaluation")}) == 3 * len(MANY)


def test_without_reserves_an_engine_that_knows_none_is_asked_as_ever(make_loop):
    class Plain(PretendEngine):
        def exchange(self, assignments):
            return super().exchange(assignments)

    assert drive(make_loop(pretend_experiment(), Plain(NAMES))).round == 4
    assert not list(itertools.chain(kinds(make_loop(pretend_experiment()), "late")))
