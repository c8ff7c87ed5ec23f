"""kill -9 at every system call of provisioning: kits are there as a whole or not at all, and doing it again helps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed_provisioning.py")
KILLER = Path(__file__).parents[1] / "store"


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    command = [sys.executable, str(SCRIPT), str(tmp_path_factory.mktemp("kills")), "write", "rename", "mkdir"]
    path = os.pathsep.join(filter(None, (str(KILLER), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_new_kits_appear_all_at_once(outcomes):
    killed = [each for each in outcomes["new"] if each["killed"]]
    assert len(killed) > 30
    assert {each["found"] for each in killed} == {"nothing"}
    assert outcomes["new"][-1]["found"] == "a,b"


def test_added_clients_are_whole_or_asked_for_again(outcomes):
    killed = [each for each in outcomes["add"] if each["killed"]]
    assert len(killed) > 15
    assert {each["found"] for each in killed} == {"a,b", "add again"}
    assert outcomes["add"][-1]["found"] == "a,b,c"


def test_doing_it_again_ends_well_and_leaves_nothing_behind(outcomes):
    assert {each["then"] for each in outcomes["new"]} == {"a,b"}
    assert {each["then"] for each in outcomes["add"]} == {"a,b,c"}
    assert not [each["hidden"] for each in (*outcomes["new"], *outcomes["add"]) if each["hidden"]]
