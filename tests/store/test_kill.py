"""kill -9 at every system call of a round: what was committed stays, and the run goes on to the same digests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed_rounds.py")
SYSTEM_CALLS = ("write", "fsync", "rename", "mkdir", "open", "truncate")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """For every call at which the process was killed: what the next process found, and how the run ended."""
    folder = tmp_path_factory.mktemp("kills")
    command = [sys.executable, str(SCRIPT), str(folder), *SYSTEM_CALLS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_kills_hit_every_stage(outcomes):
    """Before and after the rename, and in the middle of a journal line."""
    assert len(outcomes["kills"]) > 15
    stages = {(kill["found"], kill["recovered"], kill["repaired"]) for kill in outcomes["kills"]}
    assert {(1, False, False), (2, True, False), (2, True, True), (2, False, False)} <= stages


def test_what_was_committed_is_found(outcomes):
    assert {kill["found"] for kill in outcomes["kills"]} <= {1, 2}
    assert all(kill["loaded"] == kill["found"] for kill in outcomes["kills"])


def test_the_run_ends_as_if_nothing_had_happened(outcomes):
    assert all(kill["digests"] == outcomes["undisturbed"] for kill in outcomes["kills"])
    assert not [kill["left"] for kill in outcomes["kills"] if kill["left"]]
