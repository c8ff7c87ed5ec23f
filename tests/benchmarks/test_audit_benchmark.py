"""The audit's benchmark: the same run for every budget, and a table of what was found."""

from __future__ import annotations

import json

import audit
import pytest

from fedloom.spec.differences import differences
from fedloom.testing.federation import tiny_federation


@pytest.mark.parametrize("data", [None, "rows.csv"])
def test_the_runs_differ_in_nothing_but_their_promise(data, tmp_path):
    path = None if data is None else tmp_path / data
    if path is not None:
        path.write_text("text,label\n")
    free, weak, strong = (audit.experiment(path, epsilon, 3) for epsilon in audit.BUDGETS)
    assert (free.privacy.unit, weak.privacy.epsilon, strong.privacy.epsilon) == ("none", 8, 1)
    assert all("privacy" in line or "name" in line for line in differences(weak, strong))
    assert free.privacy.canaries == weak.privacy.canaries == strong.privacy.canaries > 0
    assert free.training == weak.training == strong.training


@pytest.mark.slow
def test_a_run_is_audited_and_becomes_a_line_of_the_table(tmp_path, monkeypatch):
    import fedloom

    pilot = fedloom.load(tiny_federation(tmp_path, rows=30, rounds=1, extra="[privacy]\ncanaries = 20\n"))
    monkeypatch.setattr(audit, "experiment", lambda *_: pilot)
    run = audit.audited(None, None, 0, tmp_path / "runs")
    assert len(run["row"]) == len(audit.HEADS)
    assert run["row"][0] == "none"
    assert run["loss"] != run["loss_of_the_base"]
    text = audit.markdown("what", [run])
    assert f"| {run['row'][2]} | " in text
    assert text.count("\n") == 5
    assert "60 canaries" in audit.described(None, run)
    json.dumps(run)
