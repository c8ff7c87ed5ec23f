"""The engine over Flower: the same assignments and contributions as in one process, carried by Flower's grid."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from fedloom.engine.base import Ask, Federation, Reply
from fedloom.engine.events import ClientBegins, Observer, silent
from fedloom.engine.flower.calls import ASSIGNMENT, BUSY, SECURE, call
from fedloom.engine.flower.frames import framed, parts_of, reason_in
from fedloom.engine.flower.gathering import Gathered, Gathering
from fedloom.engine.flower.post import NoAnswerError, Sent, receive, send
from fedloom.engine.flower.wire import Envelope
from fedloom.errors import FedLoomError
from fedloom.rounds.messages import Assignment, Dropout
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
            rows=self.gathered.rows,
            labels=first.labels,
            targets_rule=first.targets_rule,
            versions=first.versions,
        )

    @property
    def together(self) -> bool:
        """Flower takes some seconds for a message, whatever is in it."""
        return True

    def exchange(self, assignments: Iterable[Assignment]) -> Iterator[Reply | Dropout]:
        self.gathering.look(self.gathered)
        self.gathering.describe(self.gathered)
        bundles = groupby(assignments, key=lambda assignment: assignment.client)
        on_their_way = [self._send(client, bundle) for client, bundle in bundles]
        for sent in on_their_way:
            yield from self._receive(sent)

    def relay(self, asked: Sequence[Ask]) -> Iterator[tuple[Ask, bytes | Dropout]]:
        on_their_way = [(ask, self._passed_on(ask)) for ask in asked]
        for ask, sent in on_their_way:
            try:
                if isinstance(sent, FedLoomError):
                    raise sent
                yield ask, receive(self.gathering.grid, sent, at_most=ask.at_most).body
            except FedLoomError as error:
                yield ask, Dropout(ask.round, ask.client, str(error))

    def _passed_on(self, ask: Ask) -> Sent | FedLoomError:
        node = self.gathered.nodes.get(ask.client)
        if node is None:
            return NoAnswerError(f"client {ask.client!r} is not connected")
        message = call(SECURE, client=ask.client, step=ask.step, body=ask.body)
        try:
            group = str(ask.round)
            return send(self.gathering.grid, node, ask.client, message, seconds=self.deadline, group=group)
        except NoAnswerError as error:
            return error

    def _send(self, client: str, bundle: Iterable[Assignment]) -> _OnItsWay:
        """One message with all that is asked of a client."""
        node = self.gathered.nodes.get(client)
        if node is None:
            asked = [assignment.without_trunk() for assignment in bundle]
            return _OnItsWay(asked, (), f"client {client!r} is not connected")
        asked, bodies = [], []
        for assignment in bundle:
            self.observe(ClientBegins(client, assignment.kind, assignment.round))
            bodies.append(assignment_to_bytes(assignment))
            asked.append(assignment.without_trunk())
        run, labels = self.gathering.run_for(client), json.dumps(self.gathered.labels)
        message = call(ASSIGNMENT, client=client, run=run, labels=labels, body=framed(bodies))
        sizes, group = tuple(map(len, bodies)), str(asked[0].round)
        try:
            sent = send(self.gathering.grid, node, client, message, seconds=self.deadline, group=group)
        except NoAnswerError as error:
            return _OnItsWay(asked, sizes, str(error))
        return _OnItsWay(asked, sizes, sent)

    def _receive(self, on_its_way: _OnItsWay) -> Iterator[Reply | Dropout]:
        """One reply or dropout for each assignment of a message."""
        asked = on_its_way.asked
        try:
            answer = self._answer(on_its_way)
            bodies = parts_of(answer.body, len(asked))
        except FedLoomError as error:
            yield from (Dropout(assignment.round, assignment.client, str(error)) for assignment in asked)
            return
        for assignment, size, body in zip(asked, on_its_way.sizes, bodies, strict=True):
            yield _reply(assignment, size, body, _busy_seconds(answer))

    def _answer(self, on_its_way: _OnItsWay) -> Envelope:
        if isinstance(on_its_way.sent, str):
            raise NoAnswerError(on_its_way.sent)
        return receive(self.gathering.grid, on_its_way.sent, at_most=sum(map(largest_answer, on_its_way.asked)))


@dataclass(frozen=True)
class _OnItsWay:
    """The assignments of one message, their bytes, and the message; or why there is none."""

    asked: list[Assignment]
    sizes: tuple[int, ...]
    sent: Sent | str


def _busy_seconds(answer: Envelope) -> float:
    found = answer.facts.get(BUSY, 0.0)
    return found if isinstance(found, float) and math.isfinite(found) else 0.0


def _reply(assignment: Assignment, bytes_down: int, body: bytes, busy_seconds: float) -> Reply | Dropout:
    if reason := reason_in(body):
        return Dropout(assignment.round, assignment.client, reason)
    try:
        contribution = contribution_from_bytes(body, start=assignment.start.trainable, head=assignment.head)
    except FedLoomError as error:
        return Dropout(assignment.round, assignment.client, str(error))
    return Reply(assignment, contribution, bytes_down=bytes_down, bytes_up=len(body), busy_seconds=busy_seconds)


def largest_answer(assignment: Assignment) -> int:
    """Bytes that the answer to an assignment can have: its numbers in float32, and room for the rest."""
    head = sum(tensor.numel() for tensor in assignment.head.values())
    return 4 * (assignment.start.trainable.parameters + head) + HEADROOM
