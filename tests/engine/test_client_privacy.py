"""A run whose server adds noise for whole clients: releases are written first, and the budget ends it."""

import pytest

from fedloom.engine.client_privacy import RELEASE
from fedloom.engine.run import run
from fedloom.errors import ConfigError, RunError
from fedloom.spec.load import load
from fedloom.testing.federation import tiny_federation

PRIVACY = '\n[privacy]\nunit = "client"\nepsilon = {epsilon}\ndelta = 1e-3\n\n[rounds]\nweighting = "{weighting}"\n'


def pilot(folder, method="fedit", epsilon=8, weighting="uniform", **more):
    extra = PRIVACY.format(epsilon=epsilon, weighting=weighting) + "".join(more.values())
    return load(tiny_federation(folder, method=method, ranks=(2, 2, 2), rounds=2, extra=extra))


def test_every_round_is_released_once_within_the_budget(tmp_path):
    result = run(pilot(tmp_path), root=tmp_path / "runs")
    from fedloom.store.run_directory import RunDirectory

    records = RunDirectory.open(result.directory).journal.records()
    found = [record for record in records if record["kind"] == RELEASE]
    assert [record["round"] for record in found] == [1, 2]
    assert found[0]["epsilon"] < found[1]["epsilon"] <= 8
    kinds = [record["kind"] for record in records if record["kind"] in (RELEASE, "round_committed")]
    assert kinds == [RELEASE, "round_committed"] * 2, "what is released is written down before it is"


def test_a_round_beyond_the_budget_is_refused_and_says_how_many_are_left(tmp_path, monkeypatch):
    from fedloom.engine import client_privacy

    # As if one round had been released before and lost in a crash.
    original = client_privacy.epsilon_of
    monkeypatch.setattr(client_privacy, "epsilon_of", lambda spent, *more: original([*spent, *spent], *more))
    with pytest.raises(RunError, match=r"budget does not allow this round.*rounds released.*rounds are left"):
        run(pilot(tmp_path), root=tmp_path / "runs")


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
