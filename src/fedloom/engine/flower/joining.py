"""`fedloom join`: a site's resident worker and Flower's SuperNode beside it, kept alive until they are ended."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedloom.engine.flower import commands
from fedloom.engine.flower.mailbox import TOKEN
from fedloom.engine.flower.processes import Say, alone, end, end_left_over, environment, start
from fedloom.kits.read_client import ClientKit
from fedloom.kits.site import SiteSettings

# Flower refuses a node whose key was active within the last minute, and the SuperNode then ends for good.
NODE_BACK_OFF = 65.0
WORKER_BACK_OFF = 2.0
LONGEST_BACK_OFF = 60.0


@dataclass(frozen=True)
class Membership:
    """A kit, what the site decided, and where it keeps what stays here. port: of Flower's local process interface."""

    kit: ClientKit
    site: SiteSettings
    state: Path
    port: int

    def worker_config(self) -> dict[str, Any]:
        """What the worker is told; of it only memory_bytes goes to the server, which plans for that."""
        return {
            "client": self.kit.client,
            "store": str(self.state / "clients"),
            "site": self.site.model_dump(mode="json"),
            "memory_bytes": self.site.memory_limit_bytes,
        }

    def node_config(self, directory: Path) -> dict[str, str | int]:
        """What the node is told. directory: of the worker."""
        limit = self.site.memory_limit_bytes
        allowed = {} if limit is None else {"memory_bytes": limit}
        return {"client": self.kit.client, "worker": str(directory), **allowed}


@dataclass
class _Kept:
    """A process that is started again when it ends; the pause doubles while it keeps ending at once."""

    name: str
    begin: Callable[[], subprocess.Popen[bytes]]
    shortest: float
    process: subprocess.Popen[bytes]
    pause: float
    since: float
    due: float | None = None

    @staticmethod
    def started(name: str, begin: Callable[[], subprocess.Popen[bytes]], shortest: float) -> _Kept:
        return _Kept(name, begin, shortest, begin(), shortest, time.monotonic())

    def look(self, say: Say) -> None:
        """Start it again if it has ended and the pause is over."""
        now = time.monotonic()
        if self.due is not None:
            if now >= self.due:
                self.process, self.since, self.due = self.begin(), now, None
        elif self.process.poll() is not None:
            lived = now - self.since
            longer = min(2 * self.pause, max(LONGEST_BACK_OFF, self.shortest))
            self.pause = self.shortest if lived > LONGEST_BACK_OFF else longer
            self.due = now + self.pause
            say(f"the {self.name} ended with exit code {self.process.returncode}; started again in {self.pause:.0f} s")


def join(membership: Membership, say: Say, *, stopped: Callable[[], bool] = lambda: False) -> None:
    """Keep worker and node running. Raises: RunError if another process has joined with this kit."""
    state = membership.state
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(state / "lock", "another process has joined with this kit"), _mailbox() as directory:
        end_left_over(state, say)
        kept = [
            _Kept.started("worker", lambda: _worker(membership, directory, say), WORKER_BACK_OFF),
            _Kept.started("node", lambda: _node(membership, directory, say), NODE_BACK_OFF),
        ]
        try:
            say(f"{membership.kit.client} is joining {membership.kit.run} at {membership.kit.address}")
            while not stopped():
                time.sleep(0.5)
                for one in kept:
                    one.look(say)
        finally:
            for one in kept:
                end(one.process)


@contextmanager
def _mailbox() -> Iterator[Path]:
    """A directory that only this user can enter, with a short path (a socket's may have 108 bytes) and a new token."""
    directory = Path(tempfile.mkdtemp(prefix="fedloom-"))
    try:
        token = directory / TOKEN
        token.touch(mode=0o600)
        token.write_bytes(secrets.token_bytes(32))
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _worker(membership: Membership, directory: Path, say: Say) -> subprocess.Popen[bytes]:
    config = json.dumps(membership.worker_config())
    command = [sys.executable, "-m", "fedloom.engine.flower.worker", str(directory), config]
    return start("worker", command, say, env=environment(membership.state / "flower"), state=membership.state)


def _node(membership: Membership, directory: Path, say: Say) -> subprocess.Popen[bytes]:
    kit = membership.kit
    command = commands.supernode(
        server=str(kit.address),
        authority=kit.ca_certificate.absolute(),
        key=kit.key.absolute(),
        port=membership.port,
        config=membership.node_config(directory),
    )
    log = membership.state / "supernode.log"
    return start("node", command, say, env=environment(membership.state / "flower"), state=membership.state, log=log)
