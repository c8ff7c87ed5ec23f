"""The engine over Flower: the same assignments and contributions as in one process, carried by Flower's grid."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fedloom.engine.base import ClientRows, Federation, Reply
from fedloom.engine.events import ClientBegins, Observer, silent
from fedloom.engine.flower.calls import ASSIGNMENT, call
from fedloom.engine.flower.gathering import Gathered, Gathering
from fedloom.engine.flower.post import NoAnswerError, Sent, receive, send
from fedloom.errors import FedLoomError
from fedloom.rounds.description import Description
from fedloom.rounds.messages import Assignment, Contribution, Dropout
from fedloom.rounds.wire import assignment_to_bytes, contribution_from_bytes

HEADROOM = 4 * 2**20  # bytes of an answer beside its numbers: header, names, metrics


@dataclass(frozen=True)
class FlowerEngine:
    """Pushes all assignments of a round at once and folds their answers in the order of the assignments.

    That order makes sums the same on every engine. Answers that are early wait at Flower, so that only one is in memory
    here; whoever has not answered when the deadline is over, in seconds, is a dropout, and the others count.
    """

    gathering: Gathering
    gathered: Gathered
    deadline: float
    observe: Observer = silent

    def describe(self) -> Federation:
        described = self.gathered.descriptions
        first = described[min(described)]
        return Federation(
            base=first.base,
            base_digest=first.base_digest,
            dtype=first.dtype,
            modules=first.modules,
            head=first.head,
            rows=_Rows(described),
            labels=first.labels,
            targets_rule=first.targets_rule,
            versions=first.versions,
        )

    def exchange(self, assignments: Iterable[Assignment]) -> Iterator[Reply | Dropout]:
        self.gathering.look(self.gathered)
        self.gathering.describe(self.gathered)
        on_their_way = [self._send(assignment) for assignment in assignments]
        for sent in on_their_way:
            yield sent if isinstance(sent, Dropout) else self._receive(*sent)

    def _send(self, assignment: Assignment) -> tuple[Assignment, Sent, int] | Dropout:
        client = assignment.client
        node = self.gathered.nodes.get(client)
        if node is None:
            return Dropout(assignment.round, client, f"client {client!r} is not connected")
        self.observe(ClientBegins(client, assignment.kind, assignment.round))
        body = assignment_to_bytes(assignment)
        labels = json.dumps(self.gathered.labels)
        asked = call(ASSIGNMENT, client=client, run=self.gathering.run_for(client), labels=labels, body=body)
        try:
            group = str(assignment.round)
            sent = send(self.gathering.grid, node, client, asked, seconds=self.deadline, group=group)
        except NoAnswerError as error:
            return Dropout(assignment.round, client, str(error))
        return assignment.without_trunk(), sent, len(body)

    def _receive(self, assignment: Assignment, sent: Sent, bytes_down: int) -> Reply | Dropout:
        try:
            answer = receive(self.gathering.grid, sent, at_most=largest_answer(assignment))
            contribution = _opened(answer.body, assignment)
        except FedLoomError as error:
            return Dropout(assignment.round, assignment.client, str(error))
        return Reply(assignment, contribution, bytes_down=bytes_down, bytes_up=len(answer.body))


class _Rows(dict[str, ClientRows]):
    """What clients registered; one that comes later is found as soon as it has described itself."""

    def __init__(self, described: dict[str, Description]) -> None:
        super().__init__({client: _counts(one) for client, one in described.items()})
        self._described = described

    def __missing__(self, client: str) -> ClientRows:
        return _counts(self._described[client])


def _counts(one: Description) -> ClientRows:
    return ClientRows(one.train, one.held_out, one.dropped)


def largest_answer(assignment: Assignment) -> int:
    """Bytes that the answer to an assignment can have: its numbers in float32, and room for the rest."""
    head = sum(tensor.numel() for tensor in assignment.head.values())
    return 4 * (assignment.start.trainable.parameters + head) + HEADROOM


def _opened(body: bytes, assignment: Assignment) -> Contribution:
    """Raises: FedLoomError for bytes that are no contribution, whatever is in them."""
    try:
        return contribution_from_bytes(body, start=assignment.start.trainable)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}"[:200]
        raise FedLoomError(
            "the answer is no contribution", where=f"client {assignment.client!r}", found=found
        ) from error
