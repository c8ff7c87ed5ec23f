"""The resident worker of a client: a process that holds the base and the rows, and answers calls one by one.

python -m fedloom.engine.flower.worker DIRECTORY CONFIG
    DIRECTORY   of mode 0700, with a file `token`; the socket is made there
    CONFIG      JSON: what the site says (client, data, store, ..), see `client`; and
                idle           seconds without a call after which the base is freed
                memory_bytes   the resident size at which the worker ends itself, so that the machine lives on
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import psutil

from fedloom.engine.events import Event, Stage
from fedloom.engine.flower.calls import answered
from fedloom.engine.flower.client import answer, budget_of
from fedloom.engine.flower.mailbox import LAST_WORDS, SOCKET, TOKEN, put, take
from fedloom.engine.flower.wire import Envelope
from fedloom.engine.member import Member
from fedloom.errors import FedLoomError
from fedloom.rounds.messages import StepDone
from fedloom.training.memory import release

IDLE = 1800.0
OUT_OF_MEMORY = 3  # exit code
WATCH_EVERY = 1.0


@dataclass
class Worker:
    """Answers calls, remembers the last answer, and frees its memory when nobody asks.

    The last answer is kept because the process that asked may die before it passed it on: the same call is then
    answered without training again.
    """

    config: Mapping[str, Any]
    member: Member
    idle: float = IDLE
    _last: tuple[str, Envelope] | None = None
    _busy: threading.Lock = field(default_factory=threading.Lock)
    _used: float = field(default_factory=time.monotonic)

    def answer(self, asked: Envelope) -> Envelope:
        """The answer, or why there is none."""
        name = _digest(asked)
        with self._busy:
            if self._last is None or self._last[0] != name:
                self._last = (name, answered(asked, lambda call: answer(call, self.config, self.member)))
                release()
            self._used = time.monotonic()
            return self._last[1]

    def rest(self) -> bool:
        """Free the base if nobody asked for long; says whether it did."""
        if time.monotonic() - self._used < self.idle or not self._busy.acquire(blocking=False):
            return False
        try:
            self.member.forget()
            self._last = None
            release()
            return True
        finally:
            self._busy.release()


def _digest(asked: Envelope) -> str:
    facts = json.dumps(dict(asked.facts), sort_keys=True).encode()
    return hashlib.sha256(len(facts).to_bytes(8, "big") + facts + asked.body).hexdigest()


def serve(directory: Path, respond: Callable[[Envelope], Envelope]) -> None:
    """Answer whoever knows the token, one after the other, until the process ends."""
    path = directory / SOCKET
    path.unlink(missing_ok=True)
    # Connections wait here while a client trains: those of a SuperNode that was restarted in the meantime.
    with Listener(str(path), family="AF_UNIX", backlog=16, authkey=(directory / TOKEN).read_bytes()) as listener:
        path.chmod(0o600)
        while True:
            try:
                connection = listener.accept()
            except (AuthenticationError, EOFError, ConnectionError):
                print("somebody without the token was turned away", flush=True)
                continue
            _serve_one(connection, respond)


def _serve_one(connection: Connection, respond: Callable[[Envelope], Envelope]) -> None:
    try:
        with connection:
            put(connection, respond(take(connection)))
    except (EOFError, ConnectionError):
        print("whoever asked went away before the answer; it is kept", flush=True)
    except FedLoomError as error:
        print(f"a call could not be read: {error}", flush=True)


def watch(worker: Worker, directory: Path, memory_bytes: float | None) -> None:
    """Once a second: rest if idle, and end the process if it has grown beyond what the site allows."""
    process = psutil.Process()
    while True:
        time.sleep(WATCH_EVERY)
        if worker.rest():
            print("idle: the base was freed; it is loaded again with the next call", flush=True)
        size = process.memory_info().rss
        if memory_bytes is not None and size > memory_bytes:
            words = f"the worker needed {size / 2**30:.1f} GiB, and the site allows {memory_bytes / 2**30:.1f} GiB"
            (directory / LAST_WORDS).write_text(words + "\n", encoding="utf-8")
            print(words, flush=True)
            os._exit(OUT_OF_MEMORY)  # a training step cannot be interrupted otherwise


def _shown(event: Event) -> None:
    if isinstance(event, Stage):
        print(event.text, flush=True)
    if isinstance(event, StepDone):
        speed = f"{event.per_second:,.0f} {event.unit}/s"
        print(f"round {event.round}, step {event.step}/{event.steps}: loss {event.loss:.3f}, {speed}", flush=True)


def main(arguments: list[str]) -> None:
    directory, config = Path(arguments[0]), json.loads(arguments[1])
    member = Member(Path(config["store"]), _shown, budget_of(config), alone=True)
    worker = Worker(config, member, float(config.get("idle", IDLE)))
    threading.Thread(target=watch, args=(worker, directory, config.get("memory_bytes")), daemon=True).start()
    serve(directory, worker.answer)


if __name__ == "__main__":
    main(sys.argv[1:])
