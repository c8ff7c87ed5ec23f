"""fedloom continue prints what was learned and forgotten, and where the run comes from."""

from __future__ import annotations

import json

import fedloom as package
from fedloom.testing.federation import tiny_federation


def test_continue_shows_both_hold_outs_and_the_lineage(fedloom, tmp_path):
    package.run(package.load(tiny_federation(tmp_path, rounds=1, ranks=(2, 1))), root=tmp_path / "runs")
    (tmp_path / "new").mkdir()
    lines = [
        json.dumps({"prompt": f"Where is crate {number}?", "response": f"In hall {number}."}) for number in range(6)
    ]
    (tmp_path / "new" / "site-1.jsonl").write_text("\n".join(lines))
    runs = tmp_path / "runs"
    outcome = fedloom("continue", runs / "tiny", "--data", tmp_path / "new", "--name", "more")
    assert outcome.code == 0, outcome.err
    table = [line.split() for line in outcome.out.splitlines() if line.strip().startswith(("old ", "new "))]
    assert [line[:2] for line in table] == [["old", "site-0"], ["old", "site-1"], ["old", "all"], ["new", "site-1"]]
    assert all("->" in line for line in table)
    assert "tiny (round 1)" in outcome.out
    assert fedloom("promote", runs / "more", "--as", "prod").code == 0
    assert "continues tiny, round 1" in fedloom("versions", "prod", "--root", runs).out
    assert "more" in fedloom("resume", runs / "more").out


def test_a_folder_of_strangers_is_an_error_with_what_to_do(fedloom, tmp_path):
    package.run(package.load(tiny_federation(tmp_path, rounds=1, ranks=(1,))), root=tmp_path / "runs")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "stranger.jsonl").write_text("{}")
    outcome = fedloom("continue", tmp_path / "runs" / "tiny", "--data", tmp_path / "new")
    assert outcome.code == 2
    assert "site-0" in outcome.err
    assert "stranger.jsonl" in outcome.err
