"""A run whose clients take longer than planned is planned anew, and a resume decides nothing twice."""

from dataclasses import replace

import pytest

from fedloom.engine.drive import drive
from fedloom.engine.planner import from_text, to_text
from fedloom.engine.planning import client_choice, work_of
from fedloom.errors import ConfigError, PlanError
from fedloom.testing.engine import NAMES
from tests.engine.planned_loops import (
    ARCHITECTURE,
    SECONDS,
    left_open,
    planned_loop,
    planner_of,
    ranks,
    records,
    saying,
    sent_ranks,
)


def test_who_takes_longer_than_planned_is_given_less(make_loop):
    loop = planned_loop(make_loop, seconds=0.1, experiment=left_open(deadline=0.3))  # machines five times as fast
    rounds = sent_ranks(loop)
    assert rounds[1] == ranks(loop)["a"]
    assert sum(rounds[2].values()) < sum(rounds[1].values())
    first = records(loop)[0]
    assert first["round"] == 1
    assert set(first["factors"]) == set(NAMES)
    assert all(factor > 1.25 for factor in first["factors"].values())


def test_who_is_as_fast_as_planned_goes_on(make_loop):
    loop = planned_loop(make_loop, seconds=0.1)
    steady = planned_loop(make_loop, seconds=SECONDS * 0.1 / _seconds_of(loop), name="steady")
    rounds = sent_ranks(steady)
    assert records(steady) == []
    assert rounds[1] == rounds[4]


def _seconds_of(loop):
    """What the planner expects of client a's round."""
    known = loop.planner.known["a"]
    choice = client_choice(loop.experiment, loop.world, "a", ARCHITECTURE, known.machine)
    return loop.planner.expected_seconds("a", choice, work_of(loop.experiment, known))


def test_a_resumed_run_ends_as_the_undisturbed_one(make_loop):
    whole = planned_loop(make_loop, seconds=0.1, name="whole")
    digest = drive(whole).learned.delta().digest()
    assert records(whole)
    drive(planned_loop(make_loop, seconds=0.1, name="cut", last_round=2))
    resumed = planned_loop(make_loop, seconds=0.1, name="cut")
    assert drive(resumed).learned.delta().digest() == digest
    assert [record["round"] for record in records(resumed)] == [record["round"] for record in records(whole)]


@pytest.mark.parametrize(("method", "setting"), [("rbla", {}), ("loom", {"replan": False})])
def test_where_it_cannot_or_may_not_be_planned_anew_it_is_not(method, setting, make_loop):
    experiment = left_open(method)
    experiment = experiment.model_copy(update={"planning": experiment.planning.model_copy(update=setting)})
    loop = planned_loop(make_loop, seconds=0.1, experiment=experiment)
    rounds = sent_ranks(loop)
    assert rounds[1] == rounds[4]
    assert records(loop) == []


def test_where_nothing_fits_any_more_the_plan_stays_and_the_journal_says_why(make_loop):
    loop = planned_loop(make_loop, seconds=0.1, experiment=left_open(deadline=0.05))
    rounds = sent_ranks(loop)
    assert rounds[1] == rounds[2]
    assert "the plan stays as it is" in records(loop)[0]["reason"]
    assert "deadline: needs" in records(loop)[0]["reason"]


def test_what_a_run_is_planned_from_comes_back_from_its_text():
    planner = planner_of(left_open(), 0.3)
    assert from_text(to_text(planner)) == planner
    assert planner.known["a"].machine.upload_bandwidth == float("inf")


def test_the_plan_keeps_to_the_deadline_and_fixed_batches():
    experiment = left_open(batch_size=2)
    plan = planner_of(experiment, 5.0).plan(experiment)
    assert {(one.batch, one.accumulation) for one in plan.clients} == {(2, 2)}
    assert plan.round_seconds <= 1.0


def test_a_client_that_nothing_is_known_of_is_named():
    experiment = left_open()
    planner = planner_of(experiment, 1.0)
    partial = replace(planner, known={name: one for name, one in planner.known.items() if name != "b"})
    with pytest.raises(ConfigError, match=r"client 'b': its machine is not known.*fedloom probe --client b"):
        partial.plan(experiment)


def test_an_impossible_client_is_told_which_limit_must_move():
    experiment = left_open(memory=900.0)
    with pytest.raises(PlanError, match=r"memory: needs .* has 900 B: .* more"):
        planner_of(experiment, 1.0).plan(experiment)


def test_bits_that_were_not_measured_are_refused():
    experiment = left_open(bits=4)
    with pytest.raises(ConfigError, match="client 'a': bits = 4 was not measured"):
        planner_of(experiment, 1.0).plan(experiment)


@pytest.mark.parametrize("seconds", [None, 0, 0.0, -3.0, 1e-300, 1e300])
def test_whatever_a_client_says_of_its_seconds_the_run_goes_on(seconds, make_loop):
    loop = saying(planned_loop(make_loop, seconds=0.1, experiment=left_open(deadline=None)), seconds=seconds)
    assert drive(loop).round == 4
    if seconds is None or seconds <= 0:
        assert all("a" not in record["factors"] for record in records(loop))


def test_clients_that_are_not_planned_for_do_not_surprise(make_loop):
    experiment = left_open()
    update = {"rank": 2, "batch_size": None, "bits": 8}  # nobody measured 8 bits here
    fixed = tuple(one.model_copy(update=update) if one.name == "c" else one for one in experiment.clients)
    loop = planned_loop(make_loop, seconds=0.1, experiment=experiment.model_copy(update={"clients": fixed}))
    assert drive(loop).round == 4
    assert all("c" not in record["factors"] for record in records(loop))


def test_a_client_that_nothing_fits_any_more_does_not_hold_up_the_others(make_loop):
    loop = planned_loop(make_loop, seconds=0.1, experiment=left_open(deadline=0.3))
    loop = saying(loop, seconds=1e6)
    drive(loop)
    first = records(loop)[0]
    assert set(first["clients"]) == {"b", "c"}
    assert "the plan of a stays as it is: there is nothing that a client could train" in first["reason"]
