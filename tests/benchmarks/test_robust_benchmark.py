"""The benchmark of attacks has a valid experiment for every defence, and says what came of each."""

import argparse
import json

import pytest
import robust
import robust_federation

from fedloom.spec.rules import problems_of

OPTIONS = argparse.Namespace(method="loom", rounds=2, steps=3)


@pytest.mark.parametrize("defence", robust.DEFENCES)
def test_every_defence_can_be_run(defence):
    data = {name: f"{name}.jsonl" for name in robust.CLIENTS}
    experiment = robust_federation.experiment_of(OPTIONS, 1, ("x", "y"), data)
    assert len({client.rank for client in experiment.clients}) == 3
    assert not problems_of(experiment.model_copy(update=robust.DEFENCES[defence]))


USUAL = {"attack": "none", "defence": "nothing", "seed": 1, "loss": 0.5, "test_loss": 1.0, "rejected": 0}
USUAL |= {"excluded": [], "accuracy": 0.9}


def test_the_table_compares_with_no_attack_of_the_same_seed():
    other = {**USUAL, "seed": 2, "loss": 1.0, "test_loss": 2.0}
    door = {**USUAL, "attack": "backdoor", "loss": 0.75, "others": 0.01, "triggered": 0.8, "rejected": 2}
    again = {**door, "seed": 2, "loss": 1.1, "test_loss": 2.5, "triggered": 0.6}
    rows = robust.table([USUAL, other, door, again]).splitlines()
    assert (
        rows[2] == "| none | nothing | 2 | 90.0 | 1.500 | +0.0 % (at most +0.0 %) | +0.0 % (at most +0.0 %) |  | 0 |  |"
    )
    expected = "| backdoor | nothing | 2 | 90.0 | 1.750 | +12.5 % (at most +25.0 %) | +30.0 % (at most +50.0 %) |"
    assert rows[3] == f"{expected} 1.0 to 70.0 | 4 |  |"


def test_a_loss_of_many_times_the_usual_one_is_said_so():
    rows = robust.table([USUAL, {**USUAL, "attack": "scaling", "test_loss": 54.0}]).splitlines()
    assert "| 54.000 | 54 times |" in rows[3]


def test_runs_with_the_same_options_are_not_done_again(tmp_path):
    path = tmp_path / "robust.json"
    assert robust.earlier(path, {"rounds": 4}) == []
    path.write_text(json.dumps({"options": {"rounds": 4}, "runs": [USUAL]}), encoding="utf-8")
    assert robust.earlier(path, {"rounds": 4}) == [USUAL]
    assert robust.earlier(path, {"rounds": 5}) == []


def test_rows_are_those_of_the_classes(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("text,category\na,x\nb,y\nc,x\nd,z\n", encoding="utf-8")
    rows = robust_federation.rows_of(path, ["x", "z"], seed=1)
    assert sorted(row["text"] for row in rows) == ["a", "c", "d"]
    assert rows == robust_federation.rows_of(path, ["x", "z"], seed=1)
