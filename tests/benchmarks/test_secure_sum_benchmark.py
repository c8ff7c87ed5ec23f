"""The benchmark of secure sums runs, adds up, and counts what it says."""

import json

import secure_sum


def test_it_measures_sums_with_and_without_dropouts(tmp_path, capsys):
    secure_sum.main(["--clients", "5", "--numbers", "2000", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "secure_sum.json").read_text())
    assert [(row["clients"], row["lost"]) for row in rows] == [(5, 0), (5, 1)]
    assert all(row["client_seconds"] > 0 and row["server_seconds"] > 0 for row in rows)
    assert all(2000 * 8 / 1e6 < row["up_mb"] < 0.1 for row in rows)
    assert "| 5 | 1 | 2,000 |" in capsys.readouterr().out
