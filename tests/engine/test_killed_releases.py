"""kill -9 at every write of what a client keeps, then resume: each round is in the ledger once, and costs once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed_releases.py")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    done = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_each_round_is_in_the_ledger_once_whenever_a_run_was_killed(outcomes):
    expected = [line["epsilon"] for line in outcomes["undisturbed"]["site-0"]]
    assert len(expected) == 2
    assert len(outcomes["killed"]) > 10
    for killed in outcomes["killed"]:
        assert killed["status"] == 0
        released = [line for line in killed["ledgers"]["site-0"] if line["kind"] == "released"]
        assert [line["round"] for line in released] == [1, 2]
        assert [line["epsilon"] for line in released] == expected
        assert sorted(set(killed["epsilons"])) == expected


def test_some_were_killed_in_the_middle_of_a_line(outcomes):
    repaired = [killed for killed in outcomes["killed"] if len(killed["ledgers"]["site-0"]) > 2]
    assert len(repaired) == 2


def test_what_was_put_away_is_what_is_sent(outcomes):
    """Else a crash would be a second draw of noise on the same rows, for the price of one."""
    same = [
        killed["before"][question] == answer
        for killed in outcomes["killed"]
        for question, answer in killed["after"].items()
        if question in killed["before"]
    ]
    assert len(same) >= 2
    assert all(same)
