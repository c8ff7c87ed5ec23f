"""The engine over Flower: the same assignments and contributions as in one process, carried by Flower's grid."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import add

from flwr.app import Message

from fedloom.engine.base import ENOUGH, Ask, Federation, Reply, late, never
from fedloom.engine.events import ClientBegins, Observer, silent
from fedloom.engine.flower.calls import ASSIGNMENT, BUSY, SECURE, allowed_by, call
from fedloom.engine.flower.frames import framed, is_lacking, parts_of, reason_in
from fedloom.engine.flower.gathering import PAUSE, Gathered, Gathering
from fedloom.engine.flower.post import NoAnswerError, Sent, TooLateError, arrived, first_arrived, opened, receive, send
from fedloom.engine.flower.wire import Envelope
from fedloom.errors import FedLoomError
from fedloom.rounds.messages import Assignment, Dropout
from fedloom.rounds.wire import assignment_to_bytes, contribution_from_bytes

HEADROOM = 4 * 2**20  # bytes of an answer beside its numbers: header, names, metrics


@dataclass(frozen=True)
class FlowerEngine:
    """Pushes all assignments of a round at once and folds their answers in the order of the assignments.

    That order makes sums the same on every engine; with `rounds.over_selection` it is that of their arrival. Answers
    that are early wait at Flower, so that only one is in memory here; whoever has not answered when the deadline is
    over, in seconds, is a dropout or late, and the others count. A client whose answer is an error is asked again, as
    often as `rounds.retries`; one that was lost has `come_back` seconds.

    underway: client -> the message that it has not answered in time, where `rounds.late` is "next". Flower keeps such
    a message and its answer for `rounds.max_staleness` deadlines more, so that the answer is found by the message's id
    whatever was sent to others in the meantime; the client itself is not sent anything until then.
    """

    gathering: Gathering
    gathered: Gathered
    deadline: float
    observe: Observer = silent
    come_back: float = 120.0
    underway: dict[str, _OnItsWay] = field(default_factory=dict)

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

    def exchange(
        self, assignments: Iterable[Assignment], enough: Callable[[], bool] = never
    ) -> Iterator[Reply | Dropout]:
        self.gathering.look(self.gathered)
        self.gathering.describe(self.gathered)
        bundles = groupby(assignments, key=lambda assignment: assignment.client)
        ends = time.monotonic() + self.deadline
        on_their_way = [self._send(list(bundle), ends) for _, bundle in bundles]
        if enough is not never:
            yield from self._as_they_come(on_their_way, enough)
            return
        for sent in on_their_way:
            yield from self._receive(sent)

    def _as_they_come(self, on_their_way: Sequence[_OnItsWay], enough: Callable[[], bool]) -> Iterator[Reply | Dropout]:
        """Answers in the order in which they arrive, until there are enough; whoever is only measured is waited for. A
        client that failed is not asked again: others were asked in its place."""
        waiting = {one.sent.message_id: one for one in on_their_way if isinstance(one.sent, Sent)}
        for one in on_their_way:
            if isinstance(one.sent, str):
                yield from self._receive(one)
        while found := first_arrived(self.gathering.grid, _messages(waiting.values()), enough):
            sent, message = found
            yield from self._receive(replace(waiting.pop(sent.message_id), arrived=message))
        for one in waiting.values():
            if enough() and one.trains:
                yield from self._late(one, ENOUGH)
            else:
                yield from self._receive(one)

    def overdue(self) -> Iterator[Reply | Dropout]:
        """The training alone: the model that was to be measured in the same message is no more."""
        for client, one in list(self.underway.items()):
            assert isinstance(one.sent, Sent)
            if (message := arrived(self.gathering.grid, one.sent)) is not None:
                del self.underway[client]
                yield from (
                    answer
                    for answer, assignment in zip(
                        self._receive(replace(one, arrived=message, again=False)), one.asked, strict=True
                    )
                    if assignment.kind == "train"
                )

    def limits(self) -> Mapping[str, float | None]:
        """As sites said when they joined, and with each answer: one that is away for moments joins unnoticed."""
        self.gathering.look(self.gathered)
        return dict(self.gathered.limits)

    def give_up(self, client: str) -> None:
        self.underway.pop(client, None)

    def _late(self, on_its_way: _OnItsWay, reason: str) -> Iterator[Dropout]:
        """Nobody waits for a message any longer, and its answer is taken when it comes, if that is the rule."""
        taken = self._longer(on_its_way.asked) > 0
        asked = [assignment.without_trunk() for assignment in on_its_way.asked]
        if taken:
            self.underway[asked[0].client] = replace(on_its_way, asked=asked)
        yield from (late(one, reason, underway=taken and one.kind == "train") for one in asked)

    def _longer(self, asked: Sequence[Assignment]) -> float:
        """Seconds after the deadline for which an answer may still count; 0 for one that only measures."""
        rounds = self.gathering.experiment.rounds
        trains = any(assignment.kind == "train" for assignment in asked)
        return rounds.max_staleness * self.deadline if trains and rounds.late == "next" else 0.0

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

    def _send(self, asked: list[Assignment], ends: float, earlier: _OnItsWay | None = None) -> _OnItsWay:
        """One message with all that is asked of a client. earlier: the one that this repeats."""
        client = asked[0].client
        sizes = [0] * len(asked) if earlier is None else list(earlier.sizes)
        attempt = 1 if earlier is None else earlier.attempt + 1
        if (node := self.gathered.nodes.get(client)) is None:
            return _OnItsWay(asked, tuple(sizes), f"client {client!r} is not connected", ends, attempt)
        bodies = list(self._bodies(asked))
        run, labels = self.gathering.run_for(client), json.dumps(self.gathered.labels)
        message = call(ASSIGNMENT, client=client, run=run, labels=labels, body=framed(bodies), attempt=attempt)
        sizes, group = [*map(add, sizes, map(len, bodies))], str(asked[0].round)
        seconds = max(ends - time.monotonic(), 0.0)
        try:
            longer = self._longer(asked)
            sent = send(self.gathering.grid, node, client, message, seconds=seconds, group=group, longer=longer)
        except NoAnswerError as error:
            return _OnItsWay(asked, tuple(sizes), str(error), ends, attempt)
        return _OnItsWay(asked, tuple(sizes), sent, ends, attempt)

    def _bodies(self, asked: list[Assignment]) -> Iterator[bytes]:
        """What one assignment of a message brings, the later ones need not bring."""
        brought: frozenset[str] = frozenset()
        for assignment in asked:
            self.observe(ClientBegins(assignment.client, assignment.kind, assignment.round))
            yield assignment_to_bytes(replace(assignment, has=assignment.has | brought))
            brought |= {piece.digest for piece in assignment.pieces}

    def _receive(self, on_its_way: _OnItsWay, why: str = "") -> Iterator[Reply | Dropout]:
        """One reply or dropout for each assignment of a message. why: it is asked again, if it is."""
        asked = on_its_way.asked
        try:
            answer = self._answer(on_its_way)
            bodies = parts_of(answer.body, len(asked))
            self.gathered.limits[asked[0].client] = allowed_by(answer)
        except FedLoomError as error:
            if isinstance(error, TooLateError) and self._longer(asked) > 0:
                yield from self._late(on_its_way, str(error))
            elif not isinstance(error, TooLateError) and self._is_back(on_its_way):
                yield from self._receive(self._send(asked, on_its_way.ends, on_its_way), str(error))
            else:
                yield from (Dropout(one.round, one.client, str(error), why) for one in asked)
            return
        if on_its_way.again and not why and (lacked := next(filter(is_lacking, bodies), None)):
            whole = [replace(assignment, has=frozenset()) for assignment in asked]
            yield from self._receive(self._send(whole, on_its_way.ends, on_its_way), reason_in(lacked) or "")
            return
        for assignment, size, body in zip(asked, on_its_way.sizes, bodies, strict=True):
            yield _reply(assignment.without_trunk(), size, body, _busy_seconds(answer), why)

    def _answer(self, on_its_way: _OnItsWay) -> Envelope:
        if isinstance(on_its_way.sent, str):
            raise NoAnswerError(on_its_way.sent)
        at_most = sum(map(largest_answer, on_its_way.asked))
        if on_its_way.arrived is not None:
            return opened(on_its_way.arrived, on_its_way.sent.client, at_most)
        return receive(self.gathering.grid, on_its_way.sent, at_most=at_most)

    def _is_back(self, on_its_way: _OnItsWay) -> bool:
        """Whether a client that was sent something can be asked again: it is there, or comes back soon enough."""
        if isinstance(on_its_way.sent, str) or on_its_way.arrived is not None:
            return False
        if on_its_way.attempt > self.gathering.experiment.rounds.retries:
            return False
        client = on_its_way.asked[0].client
        ends = min(on_its_way.ends, time.monotonic() + self.come_back)
        self.gathering.look(self.gathered)
        while client not in self.gathered.nodes and time.monotonic() < ends:
            time.sleep(min(PAUSE, self.come_back))
            self.gathering.look(self.gathered)
        return client in self.gathered.nodes and time.monotonic() < on_its_way.ends


@dataclass(frozen=True)
class _OnItsWay:
    """The assignments of one message, their bytes in all attempts, and the message; or why there is none.

    ends: the deadline of the round, in time.monotonic().  arrived: its answer, where that was taken as it came.
    again: whether what the client lacks is sent once more.
    """

    asked: list[Assignment]
    sizes: tuple[int, ...]
    sent: Sent | str
    ends: float
    attempt: int
    arrived: Message | None = None
    again: bool = True

    @property
    def trains(self) -> bool:
        return any(assignment.kind == "train" for assignment in self.asked)


def _messages(waiting: Iterable[_OnItsWay]) -> list[Sent]:
    return [one.sent for one in waiting if isinstance(one.sent, Sent)]


def _busy_seconds(answer: Envelope) -> float:
    found = answer.facts.get(BUSY, 0.0)
    return found if isinstance(found, float) and math.isfinite(found) else 0.0


def _reply(assignment: Assignment, bytes_down: int, body: bytes, busy: float, why: str = "") -> Reply | Dropout:
    if reason := reason_in(body):
        return Dropout(assignment.round, assignment.client, reason, why)
    try:
        contribution = contribution_from_bytes(body, start=assignment.start.trainable, head=assignment.head)
    except FedLoomError as error:
        return Dropout(assignment.round, assignment.client, str(error), why)
    return Reply(assignment, contribution, bytes_down, len(body), busy, why)


def largest_answer(assignment: Assignment) -> int:
    """Bytes that the answer to an assignment can have: its numbers in float32, and room for the rest."""
    head = sum(tensor.numel() for tensor in assignment.head.values())
    return 4 * (assignment.start.trainable.parameters + head) + HEADROOM
