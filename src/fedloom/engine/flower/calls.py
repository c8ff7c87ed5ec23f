"""What a server asks of a client, apart from the transport: the kinds of calls, and how a client's answer is made.

Every call says everything that is needed to answer it, as the process that answers may be a new one.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from fedloom.engine.flower.wire import Envelope, Fact
from fedloom.errors import FedLoomError
from fedloom.rounds.budgets import is_amount

PROTOCOL = 1  # of the calls; that of the bytes in them is rounds.wire.PROTOCOL
HELLO, CLASSES, DESCRIBE, ASSIGNMENT, SECURE = "hello", "classes", "describe", "assignment", "secure"
BUSY = "busy_seconds"  # the fact of an answer that says how long the client's process had for it
MEMORY_LIMIT = "memory_limit"  # the fact of an answer that says how many bytes the site allows; left out: any
REFUSED = "refused"  # the fact of an answer that is none: why

# Flower routes a message by its type; only these two words differ for whoever looks at its logs.
MESSAGE_TYPES = {HELLO: "query", CLASSES: "query", DESCRIBE: "query", ASSIGNMENT: "train", SECURE: "query"}


def call(
    kind: str,
    *,
    client: str = "",
    run: str = "",
    labels: str = "[]",
    step: str = "",
    body: bytes = b"",
    attempt: int = 1,
) -> Envelope:
    """One call. run: the experiment as TOML, as far as this client needs it.  labels: class names, as JSON.

    step: of a secure sum.  attempt: a call that is made again is another one, so that nobody gives the answer that he
        gave.
    """
    facts: dict[str, Fact] = {"protocol": PROTOCOL, "version": version("fedloom"), "kind": kind, "client": client}
    return Envelope({**facts, "run": run, "labels": labels, "step": step, "attempt": attempt}, body)


def answered(asked: Envelope, answer: Callable[[Envelope], Envelope]) -> Envelope:
    """The answer, or why there is none. Neither a bad call nor a fault of ours is a reason to die: a worker that dies
    loses its base, and would be asked the same again."""
    try:
        refuse_other_protocol(asked)
        return answer(asked)
    except FedLoomError as error:
        return Envelope({"protocol": PROTOCOL, REFUSED: str(error)})
    except Exception as error:
        traceback.print_exc()
        reason = f"an unexpected {type(error).__name__} at the client: {error}; its output has the whole of it"
        return Envelope({"protocol": PROTOCOL, REFUSED: reason})


def refuse_other_protocol(message: Envelope) -> None:
    """Raises: FedLoomError that names both versions."""
    found = message.facts.get("protocol")
    if found != PROTOCOL:
        raise FedLoomError(
            "the other side speaks another protocol",
            where=f"fedloom {message.facts.get('version', 'of an unknown version')}",
            expected=PROTOCOL,
            found=found,
            do=f"Install the same version on both sides; here it is fedloom {version('fedloom')}",
        )


def hello(config: Mapping[str, Any]) -> Envelope:
    """Who a node is, by its configuration: no worker is asked, as it may be training."""
    own: dict[str, Fact] = {"client": str(config.get("client", "")), "partition": int(config.get("partition-id", -1))}
    return Envelope({"protocol": PROTOCOL, "version": version("fedloom"), **own, **allowed(config)})


def allowed(config: Mapping[str, Any]) -> dict[str, Fact]:
    """The fact of how much memory training may take at this site, by its configuration; empty for any."""
    limit = config.get("memory_bytes")
    return {} if limit is None else {MEMORY_LIMIT: float(limit)}


def allowed_by(answer: Envelope) -> float | None:
    """The bytes that a site says that it allows; None for any, or for what cannot be meant."""
    limit = answer.facts.get(MEMORY_LIMIT)
    return float(limit) if isinstance(limit, int | float) and is_amount(limit) else None
