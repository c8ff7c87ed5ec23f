"""Assignments and contributions as bytes: safetensors with a self-describing header, no pickle.

A factor that a client does not train does not travel back: the server knows what it dispatched. One that a client keeps
for itself never travels back, and travels out only before the client has one.
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

PROTOCOL = 2
FACTS = "message"


def assignment_to_bytes(assignment: Assignment) -> bytes:
    """The whole assignment in one block of bytes."""
    facts = {
        "protocol": PROTOCOL,
        "kind": assignment.kind,
        "round": assignment.round,
        "client": assignment.client,
        "trains": dict(assignment.trains),
        "keeps": dict(assignment.keeps),
        "kept_round": assignment.kept_round,
        "seed": assignment.seed,
        "work": None if assignment.work is None else asdict(assignment.work),
        "generate_rows": assignment.generate_rows,
    }
    adapters = {"trainable": assignment.start.trainable, "trunk": assignment.start.trunk}
    return to_bytes(
        adapters,
        assignment.head,
        facts={FACTS: json.dumps(facts, sort_keys=True)},
        sides=_sent_out(assignment),
        whole=("trunk",),
    )


def _sent_out(assignment: Assignment) -> dict[str, str]:
    """module -> the sides of the trainable start that the client does not have already."""
    there = assignment.keeps if assignment.kept_round else {}
    return {
        module: "".join(side for side in "ab" if side not in there.get(module, ""))
        for module in assignment.start.trainable
    }


def assignment_from_bytes(data: bytes) -> Assignment:
    """The assignment again; sides that the client keeps, and has, are NaN until `contribute.going_on` fills them in.

    Raises: AdapterError for bytes that are not one, or of another protocol.
    """
    adapters, head, facts = from_bytes(data, where="assignment", blank=("trainable",))
    message = message_of(facts, "assignment")
    work = message.pop("work")
    return Assignment(
        start=Start(trainable=adapters["trainable"], trunk=adapters["trunk"]),
        head=head,
        work=None if work is None else _work(work),
        **message,
    )


def _work(table: dict[str, Any]) -> LocalWork:
    return LocalWork(**{**table, "penalties": tuple(Penalty(**penalty) for penalty in table["penalties"])})


def contribution_to_bytes(contribution: Contribution, sends: Mapping[str, str]) -> bytes:
    """What a client sends: only the sides of each module that the assignment lets travel (`Assignment.sends`)."""
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
        facts={FACTS: json.dumps(facts, sort_keys=True)},
        sides=sends,
    )


def contribution_from_bytes(data: bytes, *, start: Adapter) -> Contribution:
    """The contribution again; what did not travel is taken from the start that was dispatched."""
    adapters, head, facts = from_bytes(data, where="contribution", restore={"adapter": start})
    return Contribution(adapter=adapters["adapter"], head=head, **message_of(facts, "contribution"))


def message_of(facts: Mapping[str, str], where: str) -> dict[str, Any]:
    """The table of a message, without its protocol. Raises: AdapterError for none, or one of another protocol."""
    try:
        message = json.loads(facts[FACTS])
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
