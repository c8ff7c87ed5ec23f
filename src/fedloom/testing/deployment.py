"""A deployment on loopback with real processes: server, sites, TLS and node authentication."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedloom.spec.load import load
from fedloom.store.run_directory import RunDirectory

FEDLOOM = [sys.executable, "-m", "fedloom"]
PATIENCE = 300.0  # seconds: on a machine that does other things too, a round may take minutes


class Deployment:
    """Kits, a server and its sites in a folder; everything that was started ends with `end`.

    pilot: the configuration, in that folder.  data: what each client joins with, by name.
    """

    def __init__(self, pilot: Path, data: Mapping[str, str]) -> None:
        self.pilot, self.folder, self.data = pilot, pilot.parent, dict(data)
        self.name = load(pilot, data_at_sites=True).name
        self.port, *ports = free_ports(1 + len(self.data))
        self.site_ports = dict(zip(self.data, ports, strict=True))
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.fedloom("provision", pilot.name, "--out", "kits", "--server", f"127.0.0.1:{self.port}")

    @property
    def run_directory(self) -> Path:
        return self.folder / "runs" / self.name

    def fedloom(self, *arguments: str, code: int = 0, seconds: float = 1800) -> str:
        """Run a command to its end and give what it printed."""
        done = subprocess.run(
            [*FEDLOOM, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == code, f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def start(self, name: str, *arguments: str) -> None:
        """Start a command that stays, with its output in NAME.log."""
        with (self.folder / f"{name}.log").open("a") as log:
            self.running[name] = subprocess.Popen(
                [*FEDLOOM, *arguments], cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )

    def serve(self) -> None:
        """Start the server, and wait until it serves."""
        before = self.log("server").count("\nserving ")
        self.start("server", "serve", "kits/server")
        self.until(lambda: self.log("server").count("\nserving ") > before, "the server")

    def join(self, client: str, *more: str) -> None:
        """Start one site, and wait until it has ended what was left of an earlier start."""
        before = self.log(client).count(" is joining ")
        self._start_site(client, *more)
        self.until(lambda: self.log(client).count(" is joining ") > before, client)

    def _start_site(self, client: str, *more: str) -> None:
        port = str(self.site_ports[client])
        self.start(client, "join", f"kits/clients/{client}", "--data", self.data[client], "--port", port, *more)

    def begin(self) -> None:
        """Server and all sites, until all of them are online."""
        self.serve()
        for client in self.data:
            self._start_site(client)
        self.until(self._all_online, "all sites", every=2.0)

    def _all_online(self) -> bool:
        return self.fedloom("status", "kits/server").count("online") == len(self.data)

    def run(self, *more: str, code: int = 0) -> str:
        """Submit the run and follow it to its end; what was printed."""
        return self.fedloom("run", self.pilot.name, "--engine", "flower", "--kit", "kits/server", *more, code=code)

    def log(self, name: str) -> str:
        """What a command that stays has printed; empty before it was started."""
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def records(self, kind: str) -> list[Any]:
        """The records of the run's journal, none before there is one."""
        if not (self.run_directory / "journal.jsonl").exists():
            return []
        return [record for record in RunDirectory.open(self.run_directory).journal.records() if record.kind == kind]

    def until(self, holds: Callable[[], bool], what: str, every: float = 0.2) -> None:
        """Wait until something holds. every: seconds between looks. Raises: AssertionError with all logs."""
        ends = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < ends, f"{what} did not come\n" + "\n".join(
                f"--- {path.name}\n{path.read_text()[-2000:]}" for path in self.folder.glob("*.log")
            )
            time.sleep(every)

    def end(self) -> None:
        """End all that was started, as Ctrl-C would."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()

    def kill_leftover(self) -> list[str]:
        """What is still there after some patience, killed; Flower's executors notice within seconds that they are
        alone."""
        ends = time.monotonic() + 20
        while self.leftover() and time.monotonic() < ends:
            time.sleep(0.2)
        found = [f"{number}: {command_line(number)}" for number in self.leftover()]
        for number in self.leftover():
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        return found

    def leftover(self) -> list[int]:
        """Processes that still have something of this folder in their command lines."""
        return list(processes_with(str(self.folder)))


def processes_with(*words: str) -> Iterator[int]:
    """Numbers of the processes, other than this one, whose command lines have all the words."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            line = command_line(int(entry.name))
            if line and all(word in line for word in words):
                yield int(entry.name)


def command_line(number: int) -> str:
    """Of a process; empty for one that has ended."""
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
