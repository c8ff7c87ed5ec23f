"""Flower's processes under ours: started with a home of their own, printed, watched and ended."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fedloom.errors import RunError
from fedloom.store.durable import lock, unlock

Say = Callable[[str], None]
GRACE = 15.0  # seconds that a process has to end by itself
_STARTED = ".started.json"
TASK_POLL = "0.2"  # seconds; Flower's default of 1 is added to every message


def environment(home: Path, **more: str) -> dict[str, str]:
    """Ours (telemetry is off in it, see fedloom.environment) with a FLWR_HOME, so that the user's is not touched."""
    quiet = {"FLWR_HOME": str(home.absolute()), "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": TASK_POLL}
    programs = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])}
    return {**os.environ, **quiet, **programs, **more}


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Only one process at a time does this. SIGTERM ends it as Ctrl-C does, so that nothing is left running.

    Raises: RunError, saying `what` is the case, if another process has the lock.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt  # not SIGINT, which a shell's background job ignores

    taken = lock(path, what)
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        unlock(taken)


def start(
    name: str, command: Sequence[str], say: Say, *, env: Mapping[str, str], state: Path, log: Path | None = None
) -> subprocess.Popen[bytes]:
    """Print a command and start it in the folder of our state, in a session of its own, so that all its children can
    be ended with it. What was started is written down there, for `end_left_over`."""
    say(f"$ {shlex.join(command)}")
    if log is None:
        process = subprocess.Popen(command, env=env, cwd=state, start_new_session=True)
    else:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, env=env, cwd=state, start_new_session=True, stdout=output, stderr=subprocess.STDOUT
            )
    facts = {"process": process.pid, "command": list(command)}
    (state / f"{name}{_STARTED}").write_text(json.dumps(facts), encoding="utf-8")
    return process


def end_left_over(state: Path, say: Say) -> None:
    """End what an earlier process of ours had started and could not end, as it was killed: it would hold the port, or
    the client's key. A process that has the number by now but another command line is left alone."""
    for path in sorted(state.glob(f"*{_STARTED}")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        if _runs(facts["process"], facts["command"]):
            say(f"ending {path.name.removesuffix(_STARTED)} of before, process {facts['process']}")
            with suppress(ProcessLookupError):
                os.killpg(facts["process"], signal.SIGKILL)
        path.unlink()


def _runs(process: int, command: Sequence[str]) -> bool:
    try:
        line = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return False
    # The interpreter of a script comes before it.
    return line[-len(command) + 1 :] == list(command[1:])


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process and its children to end, and make sure that they do."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue


def ask(command: Sequence[str], say: Say, *, env: Mapping[str, str]) -> dict[str, Any]:
    """Run one of Flower's commands and give its JSON.

    Raises: RunError with what it printed, if it fails or prints no JSON.
    """
    say(f"$ {shlex.join(command)}")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("success") is not True:
        said = (found or {}).get("error-message") if isinstance(found, dict) else None
        raise RunError(
            "Flower's command failed",
            where=shlex.join(command[:3]),
            found=said or (done.stderr or done.stdout).strip()[-2000:] or f"exit code {done.returncode}",
            do="Is `fedloom serve` running on this machine? Its log is in the kit's folder state",
        )
    return found
