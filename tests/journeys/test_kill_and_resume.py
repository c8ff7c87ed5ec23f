"""kill -9 at any moment, then resume: the same digest as an undisturbed run."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedloom.testing.federation import tiny_federation

# The process kills itself at its n-th fsync: in a journal line, in a file of a checkpoint, before or after the rename.
DYING = """
import os, signal, sys
from itertools import count
calls, fatal, sync = count(1), int(sys.argv.pop(1)), os.fsync
def dying(descriptor):
    if next(calls) == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return sync(descriptor)
os.fsync = dying
from fedloom.cli.main import main
main()
"""


def fedloom(*arguments: object, dying_at: int | None = None) -> subprocess.CompletedProcess[str]:
    words = [str(argument) for argument in arguments]
    command = [sys.executable, "-m", "fedloom", *words]
    if dying_at is not None:
        command = [sys.executable, "-c", DYING, str(dying_at), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def digest(output: str) -> str:
    found = re.search(r"Digest:\s+([0-9a-f]{64})", output)
    assert found, output
    return found[1]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return tiny_federation(tmp_path_factory.mktemp("federation"), rounds=2, ranks=(4, 1))


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory) -> tuple[str, int]:
    """The digest of a run that nobody kills, and how often it calls fsync."""
    root = tmp_path_factory.mktemp("undisturbed")
    counting = DYING.replace("os.kill(os.getpid(), signal.SIGKILL)", "pass").replace(
        "main()\n", "import atexit; atexit.register(lambda: print('fsyncs', next(calls) - 1)); main()\n"
    )
    command = [sys.executable, "-c", counting, "0", "run", str(config), "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return digest(done.stdout), int(re.search(r"fsyncs (\d+)", done.stdout)[1])


@pytest.mark.parametrize("moment", [0.05, 0.3, 0.5, 0.62, 0.8, 0.98])
def test_killed_at_any_write_it_ends_with_the_same_digest(config, undisturbed, tmp_path, moment):
    expected, fsyncs = undisturbed
    killed = fedloom("run", config, "--root", tmp_path, dying_at=max(1, round(moment * fsyncs)))
    assert killed.returncode == -signal.SIGKILL
    begun = (tmp_path / "tiny").exists()
    resumed = fedloom("resume", tmp_path / "tiny") if begun else fedloom("run", config, "--root", tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert digest(resumed.stdout) == expected
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "tiny" / "journal.jsonl").read_text().splitlines()]
    assert kinds.count("run_finished") == 1
    assert kinds.count("round_committed") == 2
