"""Robust rules in a run: what is held back, journaled, and who is shut out."""

import pytest

from fedloom.adapters.algebra import norm
from fedloom.engine.drive import drive
from fedloom.engine.robust import scores_before
from fedloom.errors import RunError
from fedloom.rounds.messages import Dropout
from fedloom.rounds.standing import EXCLUDED, excluded_clients
from fedloom.spec.experiment import ClientTable
from fedloom.spec.robust_table import RobustTable
from fedloom.testing.attacks import free_rider, scaled, sign_flip
from fedloom.testing.engine import PretendEngine, pretend_experiment
from tests.some import mostly_slow

NAMES = ("a", "b", "c", "d", "e", "f")


def robust(method="fedit", rounds=4, **table):
    clients = tuple(ClientTable(name=name, rank=2, data="none.jsonl") for name in NAMES)
    update = {"clients": clients, "robust": RobustTable(**{"enabled": True, **table})}
    return pretend_experiment(method, training={"rounds": rounds}).model_copy(update=update)


def kinds(loop, kind):
    return [record for record in loop.records() if record["kind"] == kind]


def attack_of(attack):
    """Five honest clients, and e."""

    def change(asked, sent):
        return attack(asked, sent) if (asked.client, asked.kind) == ("e", "train") else sent

    return PretendEngine(NAMES, change=change)


@pytest.mark.parametrize("method", mostly_slow(["fedit", "hetlora", "loom", "raflora"], "loom"))
def test_a_loud_client_is_held_to_the_others_and_shut_out(method, make_loop):
    experiment = robust(method)
    free = drive(make_loop(experiment.model_copy(update={"robust": RobustTable()}), attack_of(scaled()), name="free"))
    loop = make_loop(experiment, attack_of(scaled()), name="held")
    held = drive(loop)
    assert norm(held.learned.delta()) < 0.2 * norm(free.learned.delta())
    records = kinds(loop, "robust")
    assert [sorted(record["norms"]) for record in records] == [[*NAMES]] * 3 + [["a", "b", "c", "d", "f"]]
    assert all(record["scales"]["e"] < 0.05 and record["scores"]["e"] > 6 for record in records[:3])
    [excluded] = kinds(loop, EXCLUDED)
    assert (excluded["client"], excluded["by"], excluded["round"]) == ("e", "robust", 3)
    assert "above 6 in 3 rounds in a row" in excluded["reason"]
    assert kinds(loop, "round_started")[3]["excluded"] == ["e"]
    assert len(kinds(loop, "contribution")) == 6 * 3 + 5


def test_who_is_long_and_points_away_is_left_out_and_the_others_are_not(make_loop):
    """e sends the opposite of what it trained, 100 times over; the journal says who pointed where."""
    loop = make_loop(robust(quarantine_after=0, rounds=6), attack_of(sign_flip(100.0)))
    drive(loop)
    against = [record["cosines"]["e"] < 0 for record in kinds(loop, "robust")]
    assert any(against)
    assert [record["dropped"] == ["e"] for record in kinds(loop, "robust")] == against
    kept = make_loop(
        robust(quarantine_after=0, rounds=6, drop_norm_ratio=0.0), attack_of(sign_flip(100.0)), name="kept"
    )
    drive(kept)
    assert not any(record["dropped"] for record in kinds(kept, "robust"))


def test_honest_clients_are_left_alone_and_the_sum_is_what_it_was(make_loop):
    experiment = robust(max_norm_ratio=5.0)
    plain = drive(
        make_loop(experiment.model_copy(update={"robust": RobustTable()}), PretendEngine(NAMES), name="plain")
    )
    loop = make_loop(experiment, PretendEngine(NAMES), name="robust")
    assert drive(loop).learned.delta().digest() == plain.learned.delta().digest()
    assert all(set(record["scales"].values()) == {1.0} and not record["dropped"] for record in kinds(loop, "robust"))
    assert not kinds(loop, EXCLUDED)


@pytest.mark.parametrize(
    "rule", mostly_slow(["cosine", "krum", "multi-krum", "geometric-median", "trimmed-mean"], "krum")
)
def test_every_rule_runs_and_resumes_to_the_same_digest(rule, make_loop):
    experiment = robust(rule=rule, rounds=3)
    undisturbed = drive(make_loop(experiment, attack_of(sign_flip()), name="undisturbed")).learned.delta().digest()
    first = make_loop(experiment, attack_of(sign_flip()), name="stopped", last_round=1)
    drive(first)
    first.directory.close()
    again = make_loop(experiment, attack_of(sign_flip()), name="stopped")
    assert drive(again).learned.delta().digest() == undisturbed
    dropped = {len(record["dropped"]) for record in kinds(again, "robust")}
    assert dropped <= {"krum": {5}, "multi-krum": {1}, "cosine": {0, 1}}.get(rule, {0})


def test_a_quarantine_is_decided_once_also_when_its_round_is_done_again(make_loop, monkeypatch):
    experiment = robust(quarantine_after=2)
    first = make_loop(experiment, attack_of(free_rider))

    save = first.directory.save_round

    def save_or_die(number, *rest):
        if number == 3:
            raise KeyboardInterrupt
        return save(number, *rest)

    monkeypatch.setattr(first.directory, "save_round", save_or_die)
    with pytest.raises(KeyboardInterrupt):
        drive(first)
    first.directory.close()
    again = make_loop(experiment, attack_of(free_rider))
    drive(again)
    assert [(record["client"], record["round"]) for record in kinds(again, EXCLUDED)] == [("e", 2)]
    again.journal("readmitted", round=4, client="e", by="operator")
    assert not excluded_clients(again.directory.journal.records())
    assert "e" not in scores_before(again.directory.journal.records(), 9), "who is let in again begins anew"


def test_too_few_for_a_rule_is_an_error_and_the_last_round_is_intact(make_loop):
    def change(asked, sent):
        return Dropout(asked.round, asked.client, "gone") if asked.round == 2 and asked.client in "ab" else sent

    loop = make_loop(robust(rule="krum"), PretendEngine(NAMES, change=change))
    with pytest.raises(
        RunError, match=r"round 2: too few contributions for the rule krum .*at least 5.*found 4.*intact"
    ):
        drive(loop)
    assert loop.directory.latest() == 1
