"""A state that the clients' held-out rows speak against is not kept, and the run goes on as if its round had not been.

The engine without a model measures a distance, so that a loss is a known function of the state.
"""

from dataclasses import replace

import pytest
import torch

from fedloom.aggregation.registry import METHODS
from fedloom.engine.checkpoints import load_state
from fedloom.engine.drive import drive
from fedloom.engine.losses import pooled_losses
from fedloom.report.summary import summarise
from fedloom.report.values import SumRelease
from fedloom.rounds.messages import Dropout
from fedloom.spec.experiment import PrivacyTable, ServerTable
from fedloom.spec.gate_table import GateTable
from fedloom.testing.attacks import scaled
from fedloom.testing.engine import NAMES, PretendEngine, pretend_experiment
from tests.some import mostly_slow

OPEN, SHUT = 1e9, 0.0  # in percent: limits that no model exceeds, or any that is worse


def gated(method="loom", client=300.0, pooled=OPEN, on_reject="keep", **more):
    gate = GateTable(enabled=True, max_client_loss=client, max_pooled_loss=pooled, on_reject=on_reject)
    return pretend_experiment(method, **more).model_copy(update={"gate": gate})


def kinds(loop, kind):
    return [record for record in loop.records() if record["kind"] == kind]


def decisions(loop):
    return [record["decision"] for record in kinds(loop, "gate")]


def attacked(rounds, client="b", watch=None):
    """An engine in which a client sends 1e4 times its change in some rounds."""

    def change(assignment, contribution):
        if watch is not None:
            watch.append(assignment)
        bad = assignment.kind == "train" and assignment.client == client and assignment.round in rounds
        return scaled(1e4)(assignment, contribution) if bad else contribution

    return PretendEngine(NAMES, change=change)


def digest(state):
    """Of everything that a later round may depend on."""
    learned = state.learned
    parts = [learned.shared, learned.trunk, learned.momentum, *learned.clients.values(), *learned.rests.values()]
    tensors = [*learned.extras.values(), *state.head.values()]
    return [part.digest() for part in parts], [tensor.tolist() for tensor in tensors], dict(state.last_rounds)


@pytest.mark.parametrize("method", mostly_slow(METHODS, "loom", "fedit", "fedalt"))
def test_an_open_gate_changes_nothing_but_what_is_written_down(method, make_loop):
    plain = drive(make_loop(pretend_experiment(method), name="plain"))
    asked = []
    loop = make_loop(gated(method, client=OPEN), attacked((), watch=asked), name="gated")
    assert digest(drive(loop)) == digest(plain)
    assert decisions(loop) == ["accepted"] * 4
    assert [record["details"]["gate"] for record in kinds(loop, "round_committed")] == ["accepted"] * 4
    stages = [record["stage"] for record in kinds(loop, "evaluation") if record["client"] == "a"]
    assert stages == ["base", *["candidate", "round"] * 4, "final"]
    measured = sum(assignment.kind == "evaluate" for assignment in asked)
    assert measured == 3 * (1 + 4 + 1), "the candidate's measure is that of its round"


@pytest.mark.parametrize("method", mostly_slow(METHODS, "loom", "fedit", "fedalt"))
def test_a_rejected_round_leaves_no_trace_in_the_state(method, make_loop):
    asked = []
    loop = make_loop(gated(method), attacked((2,), watch=asked))
    drive(loop)
    assert decisions(loop) == ["accepted", "rejected", "accepted", "accepted"]
    first, second, last = (load_state(loop.directory, round) for round in (1, 2, 4))
    assert digest(second) == digest(first)
    assert second.chain == first.chain
    assert (second.round, last.round) == (2, 4)
    begun = {assignment.kept_round for assignment in asked if assignment.kind == "train" and assignment.round == 3}
    assert begun == {1}, "clients go on from what they kept after the round that counted"
    rejected = kinds(loop, "gate")[1]
    assert rejected["worst_change"] > 300
    assert rejected["pooled_loss"] > 10
    assert any("max_client_loss allows 300 %" in reason for reason in rejected["reasons"])
    losses = pooled_losses(loop.records())
    assert losses[2] == losses[1] != losses[3]


@pytest.mark.parametrize("server", [ServerTable(optimizer="momentum"), ServerTable(optimizer="adam")])
@pytest.mark.parametrize("method", ["flora", "fedit"])
def test_no_server_optimizer_remembers_a_rejected_round(method, server, make_loop):
    def worse(assignment, contribution):  # adam's step is as long whatever was sent
        times = 1e6 if (assignment.kind, assignment.round) == ("evaluate", 2) else 1
        return replace(contribution, metrics={**contribution.metrics, "loss": times * contribution.metrics["loss"]})

    experiment = gated(method, client=1e5, training={"rounds": 2}).model_copy(update={"server": server})
    loop = make_loop(experiment, PretendEngine(NAMES, change=worse))
    drive(loop)
    assert decisions(loop)[1] == "rejected"
    assert digest(load_state(loop.directory, 2)) == digest(load_state(loop.directory, 1))


class Killed(BaseException):
    """The process is gone at this instant."""


PLACES = {
    "between two candidates' measures": ("evaluation", "candidate", 2),
    "before the decision": ("gate", None, 1),
    "after the decision": ("save", None, 1),
    "before the commit is journaled": ("round_committed", None, 1),
    "before the measures are those of the round": ("evaluation", "round", 1),
    "among them": ("evaluation", "round", 2),
}


def killed_at(loop, monkeypatch, round, kind, stage, count):
    """The loop is lost at the count-th record of this kind in a round, before it is written."""
    append, save, seen = loop.directory.journal.append, loop.directory.save_round, []

    def append_or_die(what, **fields):
        if (what, fields.get("stage"), fields.get("round")) == (kind, stage, round):
            seen.append(what)
            if len(seen) == count:
                raise Killed
        return append(what, **fields)

    def save_or_die(number, *rest):
        if kind == "save" and number == round:
            raise Killed
        return save(number, *rest)

    monkeypatch.setattr(loop.directory.journal, "append", append_or_die)
    monkeypatch.setattr(loop.directory, "save_round", save_or_die)
    with pytest.raises(Killed):
        drive(loop)
    loop.directory.close()


CASES = [
    *(("loom", 2, place) for place in PLACES),
    ("loom", 1, "after the decision"),
    ("loom", 1, "among them"),
    ("fedalt", 2, "after the decision"),
]


@pytest.mark.parametrize(("method", "round", "place"), mostly_slow(CASES, *CASES[:2], CASES[-1]))
def test_a_run_that_was_killed_around_a_decision_ends_with_the_same_digest(
    method, round, place, make_loop, monkeypatch
):
    """Round 2 of three is the one that is rejected."""
    experiment = gated(method, training={"rounds": 3})
    undisturbed = make_loop(experiment, attacked((2,)), name="undisturbed")
    expected = digest(drive(undisturbed))
    first = make_loop(experiment, attacked((2,)), name="killed")
    killed_at(first, monkeypatch, round, *PLACES[place])
    again = make_loop(experiment, attacked((2,)), name="killed")
    assert digest(drive(again)) == expected
    latest = {record["round"]: record["decision"] for record in kinds(again, "gate")}
    assert latest == {1: "accepted", 2: "rejected", 3: "accepted"}
    assert pooled_losses(again.records()) == pytest.approx(pooled_losses(undisturbed.records()))
    rounds = {record["round"]: record["digest"] for record in kinds(again, "round_committed")}
    assert rounds == {record["round"]: record["digest"] for record in kinds(undisturbed, "round_committed")}


def test_a_run_may_stop_instead_and_stays_stopped(make_loop):
    experiment = gated(on_reject="stop")
    loop = make_loop(experiment, attacked((2,)))
    state = drive(loop)
    assert state.round == 2
    assert digest(state) == digest(load_state(loop.directory, 1))
    [stopped] = kinds(loop, "stopped_early")
    assert stopped["round"] == 2
    assert "the model of round 2 was rejected: the held-out loss of" in stopped["reason"]
    loop.directory.close()
    again = make_loop(experiment, attacked(()))
    assert drive(again).round == 2
    assert len(kinds(again, "stopped_early")) == 1


def test_the_best_so_far_counts_and_not_the_last_one(make_loop):
    """Noise makes the model worse from round to round: nothing is below the base."""
    loop = make_loop(gated(client=OPEN, pooled=SHUT))
    state = drive(loop)
    assert decisions(loop) == ["rejected"] * 4
    assert {record["best_loss"] for record in kinds(loop, "gate")} == {1.0}
    assert not state.last_rounds
    assert not state.learned.delta()
    assert state.round == 4
    assert torch.equal(state.head["score.weight"], torch.zeros(2, 3))


def test_a_rejected_round_still_spends_privacy(make_loop):
    privacy = PrivacyTable(unit="client", epsilon=8.0, delta=1e-5)
    experiment = gated("fedit", client=OPEN, pooled=SHUT, rounds={"weighting": "uniform"})
    loop = make_loop(experiment.model_copy(update={"privacy": privacy}))
    drive(loop)
    assert "rejected" in decisions(loop)
    released = kinds(loop, SumRelease.KIND)
    assert [record["round"] for record in released] == [1, 2, 3, 4]
    assert released[0]["epsilon"] < released[-1]["epsilon"] <= 8.0


def test_clients_that_are_shut_out_have_no_vote_and_lost_ones_none_either(make_loop):
    def change(assignment, contribution):
        if assignment.kind == "evaluate" and assignment.client == "c" and assignment.round:
            return Dropout(assignment.round, "c", "gone")
        if assignment.kind == "evaluate" and assignment.client == "a":
            return replace(contribution, metrics={**contribution.metrics, "loss": 1e6 if assignment.round else 1.0})
        return contribution

    voting = make_loop(gated(), PretendEngine(NAMES, change=change), name="voting", last_round=2)
    drive(voting)
    assert decisions(voting) == ["rejected", "rejected"], "one client can veto"
    loop = make_loop(gated(), PretendEngine(NAMES, change=change), name="shut out", last_round=2)
    loop.journal("excluded", round=0, client="a", by="operator", reason="it lies")
    drive(loop)
    assert decisions(loop) == ["accepted", "accepted"]
    assert {record["worst_client"] for record in kinds(loop, "gate")} == {"b"}


def test_the_report_shows_what_became_of_each_round(make_loop):
    loop = make_loop(gated(), attacked((2,)))
    drive(loop)
    summary = summarise(loop.experiment, loop.records())
    assert [entry.details["gate"] for entry in summary.rounds[1:]] == ["accepted", "rejected", "accepted", "accepted"]
    assert not {"gate", "robust"} & set(summary.unknown)
    assert all(entry.scores.pooled is not None for entry in summary.rounds)
