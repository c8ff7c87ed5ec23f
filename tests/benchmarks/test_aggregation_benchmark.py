"""That the benchmark of the server runs and tells exact methods from others; not how fast they are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedloom.aggregation.method import Law
from fedloom.aggregation.registry import METHODS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "aggregation.py"


@pytest.mark.slow
def test_the_benchmark_runs_on_small_layers(tmp_path):
    pytest.importorskip("peft")
    output = tmp_path / "aggregation.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--threads", "1", "--clients", "40", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(output.read_text())
    assert set(METHODS) <= set(record["contenders"])
    assert set(METHODS) == set(record["stream"])
    for name, method in METHODS.items():
        row = record["contenders"][name]
        assert row["rounding"] < 1e-5, name
        assert min(row["seconds"]) > 0
        assert (row["to_exact_mean"] < 1e-5) == (Law.EXACT_MEAN in method.laws), name
