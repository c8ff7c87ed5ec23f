"""The server half runs where there is no transformers, no peft and no reader of data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fedloom.store.run_directory import RunDirectory

MISSING = ("transformers", "peft", "datasets", "pyarrow", "PIL", "gguf")
SERVER = """
import sys
from pathlib import Path
for name in {missing}:
    sys.modules[name] = None
from flwr.supercore.task_identity import TaskIdentity
TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1
from fedloom.engine.flower import server_app
from fedloom.engine.flower.host import FlowerHost, run_with
from fedloom.testing.engine import NAMES, pretend_experiment
from tests.engine.flower.grid import MemoryGrid, pretending
grid = MemoryGrid({{number: pretending(name) for number, name in enumerate(NAMES, 1)}})
print(run_with(FlowerHost(grid, pretend_experiment(), server_app._print), Path(sys.argv[1])).digest)
"""


def test_it_ends_and_says_what_it_left_out(tmp_path):
    root = Path(__file__).parents[3]
    script = SERVER.format(missing=MISSING)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, cwd=root, check=False
    )
    assert done.returncode == 0, done.stderr
    records = RunDirectory.open(tmp_path / "pilot").journal.records()
    kinds = [record.kind for record in records]
    assert kinds.count("round_committed") == 4
    (left_out,) = [record for record in records if record.kind == "left_out"]
    assert left_out["what"] == "adapter"
    assert "fedloom export RUN" in left_out["reason"]
    assert done.stdout.split()[-1] == records[-1]["digest"]
