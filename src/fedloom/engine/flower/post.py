"""Calls to nodes and their answers over Flower's grid: pushed at once, pulled one by one in the order that is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from fedloom.engine.flower.calls import MESSAGE_TYPES, REFUSED, refuse_other_protocol
from fedloom.engine.flower.wire import Envelope, from_record, to_record
from fedloom.errors import FedLoomError

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5  # seconds between two looks for an answer


class NoAnswerError(FedLoomError):
    """A client did not answer, or answered that it cannot."""


class TooLateError(NoAnswerError):
    """A client did not answer in time; it may at another time."""


@dataclass(frozen=True)
class Sent:
    """A call on its way. message_id: by which its answer is found; deadline: in time.monotonic()."""

    client: str
    message_id: str
    deadline: float


def send(
    grid: Grid, node: int, client: str, asked: Envelope, *, seconds: float, group: str, longer: float = 0.0
) -> Sent:
    """Push one call. seconds: that its answer is waited for.  longer: so long after that Flower still takes an answer.

    Raises: NoAnswerError if Flower does not take it.
    """
    message = Message(to_record(asked), node, MESSAGE_TYPES[asked.text("kind")], ttl=seconds + longer, group_id=group)
    found = list(grid.push_messages([message]))
    if not found or not found[0]:
        raise NoAnswerError("Flower did not take the message", where=f"client {client!r}, node {node}")
    return Sent(client, found[0], time.monotonic() + seconds)


def receive(grid: Grid, sent: Sent, *, at_most: int | None = None) -> Envelope:
    """Wait for one answer until its deadline. at_most: bytes of a body that can be meant.

    Raises: NoAnswerError for none in time, an error of Flower or of the client, or another protocol; AdapterError for
        an answer that is none.
    """
    pause = FIRST_PAUSE
    while True:
        for message in grid.pull_messages([sent.message_id]):
            return opened(message, sent.client, at_most)
        if time.monotonic() > sent.deadline:
            raise TooLateError("no answer in time", where=f"client {sent.client!r}")
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def arrived(grid: Grid, sent: Sent) -> Message | None:
    """The answer to a call, if it is there; nobody waits. It can be taken once."""
    return next(iter(grid.pull_messages([sent.message_id])), None)


def first_arrived(grid: Grid, waiting: Sequence[Sent], enough: Callable[[], bool]) -> tuple[Sent, Message] | None:
    """The first answer to any of these calls, as it came, and the call; None once there are enough, or no deadline is
    left."""
    pause = FIRST_PAUSE
    while waiting and not enough():
        for sent in waiting:
            for message in grid.pull_messages([sent.message_id]):
                return sent, message
        if time.monotonic() > max(sent.deadline for sent in waiting):
            return None
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return None


def opened(message: Message, client: str, at_most: int | None) -> Envelope:
    """What a message says. Raises: as `receive`."""
    if message.has_error():
        reason = f"{message.error.reason or 'no reason given'} (code {message.error.code})"
        raise NoAnswerError("Flower reports an error", where=f"client {client!r}", found=reason)
    answer = from_record(message.content, at_most=at_most)
    if REFUSED in answer.facts:
        raise NoAnswerError(answer.text(REFUSED))
    refuse_other_protocol(answer)
    return answer


def ask_all(
    grid: Grid, nodes: Mapping[str, int], calls: Iterable[tuple[str, Envelope]], *, seconds: float, at_most: int
) -> dict[str, Envelope | FedLoomError]:
    """One call to each client at once, and what came back: an answer, or why there is none.

    at_most: bytes of the body of an answer.
    """
    sent: dict[str, Sent] = {}
    found: dict[str, Envelope | FedLoomError] = {}
    for client, asked in calls:
        try:
            sent[client] = send(grid, nodes[client], client, asked, seconds=seconds, group="0")
        except FedLoomError as error:
            found[client] = error
    for client, on_its_way in sent.items():
        try:
            found[client] = receive(grid, on_its_way, at_most=at_most)
        except FedLoomError as error:
            found[client] = error
    return found
