"""Runs without secure aggregation need no package for it; with it, a missing one is named."""

import subprocess
import sys

WITHOUT = "import sys; sys.modules['cryptography'] = None\n"


def run(code):
    return subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True)


def test_the_loop_and_the_clients_half_load_without_it():
    done = run("import fedloom, fedloom.engine.drive, fedloom.engine.client_half, fedloom.rounds.assign\n")
    assert done.returncode == 0, done.stderr


def test_where_it_is_asked_for_it_is_named():
    code = (
        "from fedloom.engine.privacy_extra import privacy_part\n"
        "from fedloom.errors import FedLoomError\n"
        "for name in ('masked_half', 'secure_round'):\n"
        "    try: privacy_part(name)\n"
        "    except FedLoomError as error: print(error)\n"
    )
    done = run(code)
    assert done.stdout.count("pip install 'fedloom[privacy]'") == 2, done.stderr
