"""Assignments and contributions as bytes: safetensors with a self-describing header, no pickle.

A factor that a client does not train does not travel back: the server knows what it dispatched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fedloom.adapters.adapter import Adapter
from fedloom.adapters.io import from_bytes, to_bytes
from fedloom.aggregation.local_rules import Penalty
from fedloom.aggregation.world import Start
from fedloom.errors import AdapterError
from fedloom.rounds.messages import Assignment, Contribution, LocalWork

PROTOCOL = 1
_FACTS = "message"


def assignment_to_bytes(assignment: Assignment) -> bytes:
    """The whole assignment in one block of bytes."""
    facts = {
        "protocol": PROTOCOL,
        "kind": assignment.kind,
        "round": assignment.round,
        "client": assignment.client,
        "trains": dict(assignment.trains),
        "seed": assignment.seed,
        "work": None if assignment.work is None else asdict(assignment.work),
        "generate_rows": assignment.generate_rows,
    }
    adapters = {"trainable": assignment.start.trainable, "trunk": assignment.start.trunk}
    return to_bytes(adapters, assignment.head, facts={_FACTS: json.dumps(facts, sort_keys=True)})


def assignment_from_bytes(data: bytes) -> Assignment:
    """The assignment again. Raises: AdapterError for bytes that are not one, or of another protocol."""
    adapters, head, facts = from_bytes(data, where="assignment")
    message = _message(facts, "assignment")
    work = message.pop("work")
    return Assignment(
        start=Start(trainable=adapters["trainable"], trunk=adapters["trunk"]),
        head=head,
        work=None if work is None else _work(work),
        **message,
    )


def _work(table: dict[str, Any]) -> LocalWork:
    return LocalWork(**{**table, "penalties": tuple(Penalty(**penalty) for penalty in table["penalties"])})


def contribution_to_bytes(contribution: Contribution, trains: Mapping[str, str]) -> bytes:
    """What a client sends: only the sides of each module that it trained."""
    facts = {
        "protocol": PROTOCOL,
        "round": contribution.round,
        "client": contribution.client,
        "examples": contribution.examples,
        "metrics": dict(contribution.metrics),
    }
    return to_bytes(
        {"adapter": contribution.adapter},
        contribution.head,
        facts={_FACTS: json.dumps(facts, sort_keys=True)},
        sides=trains,
    )


def contribution_from_bytes(data: bytes, *, start: Adapter) -> Contribution:
    """The contribution again; frozen factors are taken from the start that was dispatched."""
    adapters, head, facts = from_bytes(data, where="contribution", restore={"adapter": start})
    return Contribution(adapter=adapters["adapter"], head=head, **_message(facts, "contribution"))


def _message(facts: Mapping[str, str], where: str) -> dict[str, Any]:
    try:
        message = json.loads(facts[_FACTS])
        protocol = message.pop("protocol")
    except (KeyError, ValueError, AttributeError) as error:
        raise AdapterError("the bytes hold no message of FedLoom", where=where, found=repr(error)) from error
    if protocol != PROTOCOL:
        raise AdapterError(
            "the message has another protocol version",
            where=where,
            expected=PROTOCOL,
            found=protocol,
            do="Install the same version of fedloom on both sides",
        )
    return message
