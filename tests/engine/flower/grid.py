"""A grid in memory: every node answers through the shipped ClientApp, or by a function of its own, or never."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from fedloom.engine.flower.calls import PROTOCOL, allowed
from fedloom.engine.flower.client_app import reply_with
from fedloom.engine.flower.frames import framed, parts_of
from fedloom.engine.flower.wire import Envelope, from_record, to_record
from fedloom.rounds.description import Description, description_to_bytes
from fedloom.rounds.wire import assignment_from_bytes, contribution_to_bytes
from fedloom.testing.engine import PretendEngine

Answer = Callable[[Message], Message | None]  # None: never


@dataclass
class MemoryGrid(Grid):
    """nodes: number -> how it answers.  keys: number -> public key.  pulled: message ids in the order of the pulls."""

    nodes: dict[int, Answer]
    keys: dict[int, bytes] = field(default_factory=dict)
    pulled: list[str] = field(default_factory=list)
    sent: dict[str, Message] = field(default_factory=dict)

    def set_run(self, run: Any) -> None:
        pass

    @property
    def run(self) -> Any:
        return None

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node, public_key=self.keys.get(node, b"")) for node in self.nodes]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        numbers = []
        for message in messages:
            number = str(len(self.sent))
            message.metadata.__dict__["_message_id"] = number
            message.metadata.__dict__["_src_node_id"] = 1
            self.sent[number] = message
            numbers.append(number)
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        found = []
        for number in message_ids:
            message = self.sent[number]
            answer = self.nodes.get(message.metadata.dst_node_id, never)(message)
            if answer is not None:
                self.pulled.append(number)
                found.append(answer)
        return found

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise NotImplementedError


def never(_: Message) -> None:
    """A node that does not answer."""
    return


def failing(message: Message) -> Message:
    """A node whose ClientApp crashes."""
    return Message(Error(code=2, reason="it crashed"), reply_to=message)


def client(name: str, store: Path, **config: Any) -> Answer:
    """A node that is this client, by the shipped ClientApp in this process."""

    def answer(message: Message) -> Message:
        context = Context(
            run_id=0, node_id=0, node_config={"client": name, **config}, state=RecordDict(), run_config={}
        )
        return reply_with(message, context, store=str(store))

    return answer


def changing(answer: Answer, change: Callable[[Any], Any]) -> Answer:
    """The same node, with what it answers to assignments changed on its way. change: Envelope -> Envelope."""

    def changed(message: Message) -> Message | None:
        reply = answer(message)
        if reply is None or from_record(message.content).facts.get("kind") != "assignment":
            return reply
        return Message(to_record(change(from_record(reply.content))), reply_to=message)

    return changed


def pretending(
    name: str,
    *,
    says: str | None = None,
    protocol: int = PROTOCOL,
    allows: Callable[[int], float | None] = lambda _: None,
    **described_as: Any,
) -> Answer:
    """A node without any model: it says what it has, and trains as `fedloom.testing.engine` pretends to.

    says: the name that it gives.  allows: after so many trained rounds -> bytes that training may take.
    described_as: fields of its description that are others than usual.
    """
    engine = PretendEngine((name,))
    known = engine.describe()
    described = Description(
        client=name,
        base=known.base,
        base_digest=known.base_digest,
        dtype=known.dtype,
        modules=known.modules,
        labels=(),
        targets_rule="",
        train=10,
        held_out=2,
        dropped=0,
        rows_digest=name,
        versions={},
        head=known.head,
    )
    described = replace(described, **described_as)

    def answer_to(asked: Envelope) -> Envelope:
        bodies = [trained(part) for part in parts_of(asked.body)] if asked.facts["kind"] == "assignment" else []
        told = allowed({"memory_bytes": allows(engine.rounds[0])})
        facts = {"protocol": protocol, "version": "9.9", "client": says or name, **told}
        match asked.facts["kind"]:
            case "describe":
                return Envelope(facts, description_to_bytes(described))
            case "assignment":
                return Envelope(facts, framed(bodies))
        return Envelope(facts)

    def trained(part: bytes) -> bytes:
        assignment = assignment_from_bytes(part)
        engine.rounds[0] = max(engine.rounds[0], assignment.round) if assignment.kind == "train" else engine.rounds[0]
        return contribution_to_bytes(engine._at_the_client(assignment), assignment.sends)

    return lambda message: Message(to_record(answer_to(from_record(message.content))), reply_to=message)
