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
from tests.some import mostly_slow

# The process kills itself at its n-th fsync of a path that holds a text: in a journal line, in a file of a checkpoint,
# in what a client keeps, before or after the rename.
DYING = """
import os, signal, sys
from itertools import count
calls, fatal, where, sync = count(1), int(sys.argv.pop(1)), sys.argv.pop(1), os.fsync
def dying(descriptor):
    if where in os.readlink(f"/proc/self/fd/{descriptor}") and next(calls) == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return sync(descriptor)
os.fsync = dying
from fedloom.cli.main import main
main()
"""


MOMENTS = [
    *(("loom", moment) for moment in (0.05, 0.3, 0.5, 0.62, 0.8, 0.98)),
    *(("fedsa", moment) for moment in (0.62, 0.98)),
    *(("fedalt", moment) for moment in (0.62, 0.8, 0.98)),
]


def fedloom(*arguments: object, dying_at: int | None = None, where: str = "") -> subprocess.CompletedProcess[str]:
    words = [str(argument) for argument in arguments]
    command = [sys.executable, "-m", "fedloom", *words]
    if dying_at is not None:
        command = [sys.executable, "-c", DYING, str(dying_at), where, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def digest(output: str) -> str:
    found = re.search(r"Digest:\s+([0-9a-f]{64})", output)
    assert found, output
    return found[1]


@pytest.fixture(scope="module")
def config(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return tiny_federation(folder, rounds=2, ranks=(4, 1), method=request.param)


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory) -> tuple[str, int]:
    """The digest of a run that nobody kills, and how often it calls fsync."""
    root = tmp_path_factory.mktemp("undisturbed")
    counting = DYING.replace("os.kill(os.getpid(), signal.SIGKILL)", "pass").replace(
        "main()\n", "import atexit; atexit.register(lambda: print('fsyncs', next(calls) - 1)); main()\n"
    )
    command = [sys.executable, "-c", counting, "0", "", "run", str(config), "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return digest(done.stdout), int(re.search(r"fsyncs (\d+)", done.stdout)[1])


@pytest.mark.parametrize(("config", "moment"), mostly_slow(MOMENTS, ("loom", 0.62)), indirect=["config"])
def test_killed_at_any_write_it_ends_with_the_same_digest(config, undisturbed, tmp_path, moment):
    expected, fsyncs = undisturbed
    killed = fedloom("run", config, "--root", tmp_path, dying_at=max(1, round(moment * fsyncs)))
    assert killed.returncode == -signal.SIGKILL
    finish(config, tmp_path, expected)


@pytest.mark.parametrize("config", ["fedsa"], indirect=True)
@pytest.mark.parametrize("write", mostly_slow([2, 6, 7, 10]))
def test_killed_while_a_client_puts_away_what_it_keeps_it_ends_with_the_same_digest(
    config, undisturbed, tmp_path, write
):
    """Two clients and two rounds: a file (2, 7), its name (6, 10); 1 and 4 are the names of the directories."""
    killed = fedloom("run", config, "--root", tmp_path, dying_at=write, where="/clients")
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "tiny" / "clients").rglob("*"))
    finish(config, tmp_path, undisturbed[0])
    left = [path.name for path in (tmp_path / "tiny" / "clients").rglob("*") if path.is_file()]
    assert sorted(left) == ["0001.safetensors"] * 2 + ["0002.safetensors"] * 2


def finish(config: Path, root: Path, expected: str) -> None:
    """Go on with what was killed: the digest of the undisturbed run, every round committed once."""
    begun = (root / "tiny").exists()
    resumed = fedloom("resume", root / "tiny") if begun else fedloom("run", config, "--root", root)
    assert resumed.returncode == 0, resumed.stderr
    assert digest(resumed.stdout) == expected
    kinds = [json.loads(line)["kind"] for line in (root / "tiny" / "journal.jsonl").read_text().splitlines()]
    assert kinds.count("run_finished") == 1
    assert kinds.count("round_committed") == 2
