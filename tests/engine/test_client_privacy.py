"""A run whose server adds noise for whole clients: releases are written first, and the budget ends it."""

import math
from dataclasses import asdict, replace
from itertools import pairwise

import pytest

from fedloom.engine.drive import drive
from fedloom.engine.promises import client_spending
from fedloom.engine.run import run
from fedloom.errors import ConfigError, RunError
from fedloom.report.values import SumRelease
from fedloom.spec.experiment import PrivacyTable
from fedloom.spec.load import load
from fedloom.store.run_directory import RunDirectory
from fedloom.testing.engine import pretend_experiment
from fedloom.testing.federation import tiny_federation

PRIVACY = '\n[privacy]\nunit = "client"\nepsilon = {epsilon}\ndelta = {delta}\n\n[rounds]\nweighting = "{weighting}"\n'


def pilot(folder, method="fedit", epsilon=8, delta="1e-3", weighting="uniform"):
    extra = PRIVACY.format(epsilon=epsilon, delta=delta, weighting=weighting)
    return load(tiny_federation(folder, method=method, ranks=(2, 2, 2), rounds=2, extra=extra))


def test_every_round_is_released_once_within_the_budget(tmp_path):
    result = run(pilot(tmp_path), root=tmp_path / "runs")
    records = RunDirectory.open(result.directory).journal.records()
    found = [record for record in records if record["kind"] == SumRelease.KIND]
    assert [record["round"] for record in found] == [1, 2]
    assert found[0]["epsilon"] < found[1]["epsilon"] <= 8
    kinds = [record["kind"] for record in records if record["kind"] in (SumRelease.KIND, "round_committed")]
    assert kinds == [SumRelease.KIND, "round_committed"] * 2, "what is released is written down before it is"


def test_a_round_beyond_the_budget_is_refused_and_says_how_many_are_left(make_loop):
    """A release whose round was lost in a crash counts: the last of four rounds is one too many."""
    privacy = PrivacyTable(unit="client", epsilon=8.0, delta=1e-5)
    experiment = pretend_experiment("fedit", rounds={"weighting": "uniform"}).model_copy(update={"privacy": privacy})
    loop = make_loop(experiment)
    lost = SumRelease(1, client_spending(experiment).noise_multiplier, 1.0, 0.0, 1e-5)
    loop.journal(SumRelease.KIND, **asdict(lost))
    with pytest.raises(RunError, match=r"round 4: .*budget does not allow this round.*spent in 4 rounds.*noise: 0\."):
        drive(loop)
    assert loop.directory.latest() == 3


def test_a_bound_that_adapts_is_that_of_the_next_release_also_after_a_resume(make_loop):
    privacy = PrivacyTable(unit="client", noise_multiplier=0.01, delta=1e-5, max_change_norm=50.0, clip_quantile=0.5)
    experiment = pretend_experiment("fedit", rounds={"weighting": "uniform"}).model_copy(update={"privacy": privacy})
    loop = make_loop(experiment, last_round=2)
    drive(loop)
    drive(replace(loop, last_round=4))
    released = [record["max_change_norm"] for record in loop.records() if record["kind"] == SumRelease.KIND]
    assert released[0] == 50.0
    assert all(later / earlier == pytest.approx(math.exp(-0.1), rel=0.05) for earlier, later in pairwise(released))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"epsilon": 1e-4, "delta": "1e-9"}, "no noise is enough"),
        ({"delta": "0.4"}, "delta is too large for so few clients.*below 1 / 3"),
    ],
)
def test_what_cannot_be_held_is_said_before_anything_is_trained(tmp_path, wrong, named):
    with pytest.raises(RunError, match=named):
        run(pilot(tmp_path, **wrong), root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_report_shows_what_was_released(tmp_path):
    result = run(pilot(tmp_path), root=tmp_path / "runs")
    assert [one.round for one in result.summary.sums] == [1, 2]
    page = (result.directory / "report.html").read_text()
    assert "each client as a whole" in page
    assert f"{result.summary.sums[-1].epsilon:.3f}" in page


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"method": "loom"}, "method.*plain factors are added up"),
        ({"method": "hetlora"}, "method.*plain factors are added up"),
        ({"weighting": "examples"}, "weighting.*all count alike"),
    ],
)
def test_what_breaks_the_promise_is_refused(tmp_path, wrong, named):
    with pytest.raises(ConfigError, match=named):
        pilot(tmp_path, **wrong)
