"""The table of the wire benchmark, from cells that are made up; and, slowly, that it runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import wire

SCRIPT = Path(wire.__file__)


def cell(method, up, down, bytes_up, bytes_down, loss):
    return {"method": method, "up": up, "down": down, "bytes_up": bytes_up, "bytes_down": bytes_down, "loss": loss}


def test_shares_are_of_the_same_methods_float32_and_of_floras_download():
    found = [
        cell("loom", "float32", "float32", 100, 300, 1.0),
        cell("loom", "int4", "int8", 20, 80, 1.1),
        cell("flora", "float32", "float32", 100, 400, 2.0),
        cell("loom", "float32", "float32", 100, 300, 3.0),
        cell("loom", "int4", "int8", 20, 80, 3.3),
        cell("flora", "float32", "float32", 100, 400, 2.0),
    ]
    rows = {(row["method"], row["up"]): row for row in wire.rows_of(found)}
    compact = rows["loom", "int4"]
    assert compact["share"] == 0.25
    assert compact["share_of_stacked_download"] == 0.2
    assert compact["loss"] == pytest.approx(2.2)
    assert compact["loss_above_exact"] == pytest.approx(0.2)
    assert rows["flora", "float32"]["share"] == 1
    assert "| `loom` | int4 | int8 | 0.0 | 0.1 | 0.250 | 0.200 | 2.2000 | +0.2000 |" in wire.as_markdown(rows.values())


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path):
    command = [sys.executable, str(SCRIPT), "--quick", "--methods", "flora", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "wire.json").read_text())["rows"]
    assert [row["share"] < 1 for row in rows] == [False, True, True, True, True]
