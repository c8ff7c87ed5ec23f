"""The benchmark of attacks has a valid experiment for every defence, and says what came of each."""

import argparse

import pytest
import robust

from fedloom.spec.rules import problems_of

OPTIONS = argparse.Namespace(seed=1, method="loom", rounds=2, steps=3)


@pytest.mark.parametrize("defence", robust.DEFENCES)
def test_every_defence_can_be_run(defence):
    data = {name: f"{name}.jsonl" for name in robust.CLIENTS}
    experiment = robust.experiment_of(OPTIONS, ("x", "y"), data)
    assert len({client.rank for client in experiment.clients}) == 3
    assert not problems_of(experiment.model_copy(update=robust.DEFENCES[defence]))


def test_the_table_compares_with_no_attack():
    usual = {"attack": "none", "defence": "nothing", "loss": 0.5, "rejected": 0, "excluded": [], "accuracy": 0.9}
    door = {**usual, "attack": "backdoor", "loss": 0.75, "others": 0.01, "triggered": 0.8, "rejected": 2}
    rows = robust.table([usual, door]).splitlines()
    assert rows[2] == "| none | nothing | 90.0 | 0.500 | +0.0 % |  | 0 |  |"
    assert rows[3] == "| backdoor | nothing | 90.0 | 0.750 | +50.0 % | 1.0 to 80.0 | 2 |  |"


def test_rows_are_those_of_the_classes(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("text,category\na,x\nb,y\nc,x\nd,z\n", encoding="utf-8")
    rows = robust.rows_of(path, ["x", "z"], seed=1)
    assert sorted(row["text"] for row in rows) == ["a", "c", "d"]
    assert rows == robust.rows_of(path, ["x", "z"], seed=1)
