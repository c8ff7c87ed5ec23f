"""A terminal that knows few characters."""

import os
import subprocess
import sys


def test_a_terminal_of_ascii_gets_question_marks_and_no_traceback():
    outcome = subprocess.run(
        [sys.executable, "-m", "fedloom", "methods"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr.decode()
    assert outcome.stdout.isascii()
    assert b"loom" in outcome.stdout
    assert not outcome.stderr
