"""That the benchmark of the rest of the world runs and counts what it says; not how fast anything is."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "rest_of_world.py"


def test_the_benchmark_runs_on_small_layers(tmp_path):
    output = tmp_path / "rest.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--threads", "1", "--clients", "3", "9", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(output.read_text())["clients"]
    assert list(rows) == ["3", "9"]
    for row in rows.values():
        assert 0 < row["mean_error"] < 1
        assert row["naive_seconds"] > row["naive_sums_seconds"] > 0
        assert min(row[f"{name}_seconds"] for name in ("exact", "factors", "gram")) > 0
