"""Trackers have what the journal has, each point once, and one that fails does not stop the run."""

import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from fedloom.engine.run import resume, run
from fedloom.engine.tracking import track
from fedloom.errors import FedLoomError, RunError
from fedloom.spec.load import load
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.federation import tiny_federation


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was tracked by TensorBoard while it went on, and by a wandb that fails."""
    folder = tmp_path_factory.mktemp("tracked")
    pilot = tiny_federation(folder, rounds=2, ranks=(2, 1))
    pilot.write_text(pilot.read_text() + '\n[tracking]\nto = ["tensorboard", "wandb"]\n')
    modules, fails = sys.modules, SimpleNamespace(init=lambda **_: 1 / 0)
    kept, modules["wandb"] = modules.get("wandb"), fails
    try:
        return run(load(pilot), root=folder / "runs").directory
    finally:
        modules.pop("wandb") if kept is None else modules.update(wandb=kept)


def of_tensorboard(path):
    """(name, step) -> the values there."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(path / "tensorboard" / "tiny"))
    events.Reload()
    names = events.Tags()["scalars"]
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in names}


def journaled(path):
    """client -> (round, training loss) of every contribution."""
    records = RunDirectory.open(path).journal.records()
    found = {}
    for record in records:
        if record["kind"] == "contribution":
            found.setdefault(record["client"], []).append((record["round"], record["loss"]))
    return found


def check_complete(found, path):
    for client, losses in journaled(path).items():
        assert found[f"{client}/train/loss"] == [(step, pytest.approx(loss)) for step, loss in losses]
    assert [step for step, _ in found["round_seconds"]] == [1, 2]
    assert [step for step, _ in found["mean/held_out/loss"]] == [0, 1, 2]


def test_tensorboard_has_each_point_once_and_again_after_a_resume(finished):
    check_complete(of_tensorboard(finished / "tracking"), finished)
    resume(finished)
    check_complete(of_tensorboard(finished / "tracking"), finished)


def test_a_tracker_that_fails_is_journaled_once(finished):
    failed = [one for one in RunDirectory.open(finished).journal.records() if one["kind"] == "tracking_failed"]
    assert [one["tracker"] for one in failed] == ["wandb"]
    assert "ZeroDivisionError" in failed[0]["reason"]


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ('to = ["wandb", "wandb"]', r"tracking. to: names .wandb. more than once"),
        ('to = ["tensorboard"]\ndirectory = "RUNS/tiny/rounds/here"', "among the files that a run keeps"),
    ],
)
def test_points_twice_or_among_a_runs_own_files_are_refused_before_anything_trains(tmp_path, table, named):
    pilot = tiny_federation(tmp_path, rounds=1, ranks=(2, 1))
    pilot.write_text(f"{pilot.read_text()}\n[tracking]\n{table.replace('RUNS', str(tmp_path / 'runs'))}\n")
    with pytest.raises(FedLoomError, match=named):
        run(load(pilot), root=tmp_path / "runs")
    assert not list((tmp_path / "runs").rglob("round-*"))


def test_a_finished_run_is_tracked_again_without_doubling(finished, tmp_path):
    for _ in range(2):
        track(finished, "tensorboard", tmp_path)
    check_complete(of_tensorboard(tmp_path), finished)


@pytest.mark.slow
def test_mlflow_has_each_point_once(finished, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    for _ in range(2):
        track(finished, "mlflow", tmp_path)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    (made,) = client.search_runs([client.get_experiment_by_name("fedloom").experiment_id])
    names = made.data.metrics
    check_complete(
        {name: [(one.step, one.value) for one in client.get_metric_history(made.info.run_id, name)] for name in names},
        finished,
    )


def test_wandb_is_offline_and_gets_every_round(finished, tmp_path, monkeypatch):
    rows, modes = [], []
    made = SimpleNamespace(log=rows.append, finish=lambda: None, define_metric=lambda *_, **__: None)
    fake = SimpleNamespace(init=lambda **options: modes.append(options["mode"]) or made)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    track(finished, "wandb", tmp_path)
    assert modes == ["offline"]
    assert Counter(row["round"] for row in rows) == {0: 1, 1: 1, 2: 1}
    assert rows[2]["site-0/train/loss"] == pytest.approx(dict(journaled(finished)["site-0"])[2])


def test_a_library_that_fails_is_an_error_of_its_own(finished, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise OSError("no room")

    monkeypatch.setattr("fedloom.engine.tracking.opened", broken)
    with pytest.raises(RunError, match=r"tensorboard did not take the numbers .*no room"):
        track(finished, "tensorboard", tmp_path)
