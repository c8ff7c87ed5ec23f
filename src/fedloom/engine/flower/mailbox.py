"""How a ClientApp reaches the resident worker of its node: a local socket, a token, plain bytes.

Flower starts a new process for every message. This is what that process runs, so nothing here imports torch.
The worker's directory belongs to its user alone (mode 0700) and holds the socket and the token; both sides prove that
they know the token before anything else is said (multiprocessing.connection's challenge). No pickle: the facts are
JSON, the body is bytes.
"""

from __future__ import annotations

import json
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection
from pathlib import Path

from fedloom.engine.flower.wire import Envelope
from fedloom.errors import FedLoomError

SOCKET, TOKEN, LAST_WORDS = "socket", "token", "last-words.txt"
PATIENCE = 120.0  # seconds for a worker that died to come back
ATTEMPTS = 3  # of one call: a worker that dies of it is not asked for ever
PAUSE = 0.25


def ask_worker(directory: str, asked: Envelope, *, patience: float = PATIENCE) -> Envelope:
    """The worker's answer. A worker that is away, or dies of the call, is waited for and asked again.

    Raises: FedLoomError if it does not come back, dies again and again, or has another token.
    """
    folder = Path(directory)
    for _ in range(ATTEMPTS):
        connection = _connected(folder, patience)
        try:
            with connection:
                put(connection, asked)
                return take(connection)
        except (EOFError, ConnectionError):
            continue
    raise FedLoomError(
        "the worker dies of this call",
        where=folder,
        expected="an answer",
        found=f"{ATTEMPTS} deaths; {_last_words(folder)}",
        do="See the output of `fedloom join`",
    )


def put(connection: Connection, envelope: Envelope) -> None:
    """Send one message: facts as JSON, then the body."""
    connection.send_bytes(json.dumps(dict(envelope.facts)).encode())
    connection.send_bytes(envelope.body)


def take(connection: Connection) -> Envelope:
    """Receive one message. Raises: EOFError if the other side goes away, FedLoomError for what is none."""
    facts, body = connection.recv_bytes(), connection.recv_bytes()
    try:
        table = json.loads(facts)
    except ValueError as error:
        raise FedLoomError("the facts of a message cannot be read", where="local socket", found=str(error)) from error
    if not isinstance(table, dict):
        raise FedLoomError("the facts of a message are not a table", where="local socket", found=type(table).__name__)
    return Envelope(table, body)


def _connected(folder: Path, patience: float) -> Connection:
    ends = time.monotonic() + patience
    while True:
        try:
            return Client(str(folder / SOCKET), family="AF_UNIX", authkey=(folder / TOKEN).read_bytes())
        except AuthenticationError as error:
            raise FedLoomError("the worker has another token", where=folder, do="Restart `fedloom join`") from error
        except (OSError, EOFError) as error:
            if time.monotonic() > ends:
                raise FedLoomError(
                    "the worker is not there",
                    where=folder,
                    found=f"{error}; {_last_words(folder)}",
                    do="Is `fedloom join` running? Its output says why the worker does not start",
                ) from error
            time.sleep(PAUSE)


def _last_words(folder: Path) -> str:
    try:
        return (folder / LAST_WORDS).read_text(encoding="utf-8").strip()
    except OSError:
        return "it said nothing"
