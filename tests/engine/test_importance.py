"""Importance through rounds: journaled, smoothed, the same under secure aggregation and after a stop."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedloom.engine.drive import drive
from fedloom.engine.importance import latest_importance
from fedloom.spec.secure_table import SecureAggregationTable
from fedloom.testing.engine import MODULES, NAMES, PretendEngine, pretend_experiment

FIRST, SECOND = sorted(MODULES)  # the pretended scores of a client are 1 and 2


def measured(loop):
    return [record for record in loop.records() if record["kind"] == "importance"]


def experiment_of(importance=True, lacks=(), secure=False):
    experiment = pretend_experiment("rbla", training={"importance": importance}, rounds={"max_update_norm": 50.0})
    clients = tuple(
        client.model_copy(update={"rank_pattern": dict.fromkeys(lacks, 0)}) if client.name == "a" else client
        for client in experiment.clients
    )
    table = SecureAggregationTable(enabled=secure)
    return experiment.model_copy(update={"clients": clients, "secure_aggregation": table})


def test_every_round_writes_down_what_matters(make_loop):
    loop = make_loop(experiment_of())
    drive(loop)
    assert [record["round"] for record in measured(loop)] == [1, 2, 3, 4]
    for record in measured(loop):
        assert record["modules"] == {FIRST: 0.3333, SECOND: 0.6667}
        assert record["assumed"] == []
    assert latest_importance(loop.records()) == {FIRST: 0.3333, SECOND: 0.6667}


def test_nothing_is_measured_that_was_not_asked_for_and_the_run_is_the_same(make_loop):
    loops = [make_loop(experiment_of(importance), name=str(importance)) for importance in (False, True)]
    states = [drive(loop) for loop in loops]
    assert states[0].learned.delta().digest() == states[1].learned.delta().digest()
    assert measured(loops[0]) == []
    assert latest_importance(loops[0].records()) is None


def test_a_client_without_a_module_says_nothing_of_it(make_loop):
    """It scores the other one with what that is known to matter, and so moves nothing."""
    loop = make_loop(experiment_of(lacks=(FIRST,)))
    drive(loop)
    # a: 1/2 for the second; b and c: 1/3 and 2/3.
    first, second = 1 / 3, (1 / 2 + 2 * 2 / 3) / 3
    shares = measured(loop)[0]["modules"]
    assert shares[SECOND] == pytest.approx(second / (first + second), abs=1e-3)
    latest = latest_importance(loop.records())
    assert shares[SECOND] < latest[SECOND] < 2 / 3 + 1e-3


def test_a_module_that_nobody_trains_is_called_assumed(make_loop):
    experiment = experiment_of()
    clients = tuple(client.model_copy(update={"rank_pattern": {FIRST: 0}}) for client in experiment.clients)
    loop = make_loop(experiment.model_copy(update={"clients": clients}))
    drive(loop)
    assert measured(loop)[-1]["assumed"] == [FIRST]
    assert latest_importance(loop.records()) == {FIRST: 0.5, SECOND: 0.5}


@pytest.mark.parametrize("lacks", [(), (FIRST,)])
def test_a_secure_run_knows_the_same(lacks, make_loop):
    pytest.importorskip("cryptography")
    plain = make_loop(experiment_of(lacks=lacks), name="plain")
    secure = make_loop(experiment_of(lacks=lacks, secure=True), name="secure")
    drive(plain)
    drive(secure)
    assert [record["modules"] for record in measured(secure)] == [record["modules"] for record in measured(plain)]


def test_a_run_that_was_stopped_between_measurement_and_commit_goes_on_to_the_same(make_loop):
    experiment = experiment_of(lacks=(FIRST,))
    undisturbed = make_loop(experiment, name="undisturbed")
    drive(undisturbed)
    first = make_loop(experiment, name="stopped", last_round=2)
    drive(first)
    first.journal("importance", round=3, modules={FIRST: 0.99, SECOND: 0.01}, assumed=[])  # and killed here
    first.directory.close()
    again = make_loop(experiment, name="stopped")
    drive(again)
    assert latest_importance(again.records()) == latest_importance(undisturbed.records())


def test_scores_that_are_wrong_are_refused_with_their_contribution(make_loop):
    def shouting(assignment, contribution):
        if contribution.client != "b" or not contribution.importance:
            return contribution
        return replace(contribution, importance={FIRST: 0.9, SECOND: 0.9})

    loop = make_loop(experiment_of(), PretendEngine(NAMES, change=shouting))
    drive(loop)
    refused = [record for record in loop.records() if record["kind"] == "refused"]
    assert {record["client"] for record in refused} == {"b"}
    assert "another sum" in refused[0]["reason"]
    assert latest_importance(loop.records()) == {FIRST: 0.3333, SECOND: 0.6667}
