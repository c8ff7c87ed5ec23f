"""An engine without any model: a client's training is a repeatable draw. The loop can be tested in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedloom import rng
from fedloom.adapters.adapter import Adapter
from fedloom.adapters.algebra import norm, subtract
from fedloom.adapters.factors import Factors
from fedloom.aggregation.method import Law
from fedloom.aggregation.registry import METHODS
from fedloom.engine.base import Ask, ClientRows, Federation, Reply, late, never
from fedloom.engine.forming import confirmed, with_trunk
from fedloom.engine.keeping import begun, leaving, store_of
from fedloom.engine.privacy_extra import privacy_part
from fedloom.errors import FedLoomError
from fedloom.planning.importance import scaled
from fedloom.rounds.choosing import chosen
from fedloom.rounds.contribute import prepared
from fedloom.rounds.messages import Assignment, Contribution, Dropout
from fedloom.rounds.personal import own_tensors
from fedloom.rounds.wire import (
    assignment_from_bytes,
    assignment_to_bytes,
    contribution_from_bytes,
    contribution_to_bytes,
)
from fedloom.spec.experiment import ClientTable, Experiment, MethodTable, RoundsTable, TrainingTable

MODULES = {"layers.0.q_proj": (12, 10), "layers.1.v_proj": (8, 10)}

NAMES = ("a", "b", "c")

Change = Callable[[Assignment, Contribution], Contribution | Dropout]


def unchanged(_: Assignment, contribution: Contribution) -> Contribution:
    """A client that does as it is told."""
    return contribution


@dataclass(frozen=True)
class PretendEngine:
    """Every client moves its factors by noise from its seed; the loss is the distance from a target delta of norm 1.

    change: what becomes of a contribution on its way (poison it, drop it out).
    store: where each client has a directory of its own, for methods whose clients keep something.
    slow: (client, round) -> so many rounds later its answer to that round comes.  answers: client -> the round in which
        its answer comes, and that.  rounds: the one that is being trained.
    allow: round -> as of `Engine.limits` after it.
    sums: client -> the secure sum that it takes part in.  silent: (client, step) of secure sums without an answer.
    """

    clients: tuple[str, ...]
    modules: Mapping[str, tuple[int, int]] = field(default_factory=lambda: dict(MODULES))
    change: Change = unchanged
    step: float = 0.1
    store: Path | None = None
    together: bool = False
    sums: dict[str, Any] = field(default_factory=dict)
    silent: frozenset[tuple[str, str]] = frozenset()
    slow: Mapping[tuple[str, int], int] = field(default_factory=dict)
    answers: dict[str, tuple[int, Reply | Dropout]] = field(default_factory=dict)
    rounds: list[int] = field(default_factory=lambda: [0])
    allow: Callable[[int], Mapping[str, float | None]] = lambda _: {}

    def describe(self) -> Federation:
        rows = {client: ClientRows(train=10, held_out=2, dropped=0) for client in self.clients}
        head = {"score.weight": torch.zeros(2, 3)}
        return Federation("pretend", "0" * 64, "float32", self.modules, head, rows)

    def exchange(
        self, assignments: Iterable[Assignment], enough: Callable[[], bool] = never
    ) -> Iterator[Reply | Dropout]:
        for assignment in assignments:
            if assignment.kind == "train" and enough():
                yield late(assignment)
                continue
            answer = self._answered(assignment)
            if assignment.kind != "train":
                yield answer
                continue
            self.rounds[0] = assignment.round
            if wait := self.slow.get((assignment.client, assignment.round), 0):
                self.answers[assignment.client] = (assignment.round + wait, answer)
                yield late(assignment, "no answer in time", underway=True)
            else:
                yield answer

    def overdue(self) -> Iterator[Reply | Dropout]:
        for client, (due, answer) in list(self.answers.items()):
            if due <= self.rounds[0]:
                del self.answers[client]
                yield answer

    def limits(self) -> Mapping[str, float | None]:
        return self.allow(self.rounds[0])

    def give_up(self, client: str) -> None:
        self.answers.pop(client, None)

    def _answered(self, assignment: Assignment) -> Reply | Dropout:
        down = assignment_to_bytes(assignment)
        received = assignment_from_bytes(down)
        own = with_trunk(begun(received, store_of(self.store, received)), self.store)
        own = chosen(own, lambda start: self.loss_of(start.delta()))
        answered = self.change(own, self._at_the_client(own))
        if isinstance(answered, Dropout):
            return answered
        try:
            if assignment.masking is not None:
                answered = privacy_part("masked_half").masked(self.sums, own, answered, self.store)
        except FedLoomError as error:
            return Dropout(assignment.round, assignment.client, str(error))
        sent = confirmed(assignment, answered, self.store)
        up = contribution_to_bytes(sent, assignment.sends, asked=own)
        again = contribution_from_bytes(up, start=assignment.start.trainable, head=assignment.head)
        return Reply(assignment, again, bytes_down=len(down), bytes_up=len(up))

    def relay(self, asked: Sequence[Ask]) -> Iterator[tuple[Ask, bytes | Dropout]]:
        for ask in asked:
            if (ask.client, ask.step) in self.silent:
                yield ask, Dropout(ask.round, ask.client, "it went away")
                continue
            try:
                half = privacy_part("masked_half")
                yield ask, half.masked_answer(self.sums, ask.client, ask.step, ask.body, self.store)
            except FedLoomError as error:
                yield ask, Dropout(ask.round, ask.client, str(error))

    def _at_the_client(self, assignment: Assignment) -> Contribution:
        if assignment.kind == "evaluate":
            return self._measured(assignment)
        own = own_tensors(_moved_mixers(assignment, self.step), _steps_so_far(assignment))
        return leaving(assignment, self._trained(assignment), store_of(self.store, assignment), own)

    def _trained(self, assignment: Assignment) -> Contribution:
        draw = rng.generator(assignment.seed, "pretend")
        sides = assignment.trains

        def moved(module: str, factors: Factors) -> Factors:
            a, b = (
                side + self.step * torch.randn(side.shape, generator=draw) if name in sides[module] else side
                for name, side in (("a", factors.a), ("b", factors.b))
            )
            return Factors(a, b, factors.scaling)

        return Contribution(
            round=assignment.round,
            client=assignment.client,
            examples=10,
            metrics={"loss": 1.0, "seconds": 0.5, "tokens_per_second": 1.0},
            adapter=prepared(assignment, assignment.start.trainable.map(moved)),
            head={name: tensor + 1 for name, tensor in assignment.head.items()},
            importance=_scores(assignment),
        )

    def _measured(self, assignment: Assignment) -> Contribution:
        metrics = {"loss": self.loss_of(assignment.start.delta()), "label_tokens": 5.0, "rows": 2.0}
        return Contribution(assignment.round, assignment.client, examples=2, metrics=metrics)

    def loss_of(self, delta: Adapter) -> float:
        """What every client measures of a model."""
        return norm(subtract(delta, _target(self.modules)))


def pretend_experiment(
    method: str = "loom", *, training: Mapping[str, Any] | None = None, rounds: Mapping[str, Any] | None = None
) -> Experiment:
    """Four rounds of three clients of rank 1, 2 and 3, or of rank 2 where the method needs equal ranks."""
    unequal = Law.UNEQUAL_RANKS in METHODS[method].laws
    return Experiment(
        clients=tuple(
            ClientTable(name=name, rank=rank if unequal else 2, data="none.jsonl") for rank, name in enumerate(NAMES, 1)
        ),
        method=MethodTable(name=method),
        training=TrainingTable(**{"rounds": 4, **(training or {})}),
        rounds=RoundsTable(**(rounds or {})),
    )


def _moved_mixers(assignment: Assignment, step: float) -> dict[str, Tensor]:
    """Of a client that mixes: each mixer a step further, where there is something to mix."""
    start = assignment.start
    zero = {name: torch.zeros(2, factors.shape[1]) for name, factors in start.trainable.items() if name in start.rest}
    return {**start.mixers, **{name: start.mixers.get(name, mixer) + step for name, mixer in zero.items()}}


def _steps_so_far(assignment: Assignment) -> dict[str, Tensor]:
    """As if it were the state of an optimizer."""
    if not assignment.resumes or assignment.work is None:
        return {}
    return {"steps": assignment.memory.get("steps", torch.zeros(())) + assignment.work.steps}


def _scores(assignment: Assignment) -> dict[str, float]:
    """Of modules in sorted order 1, 2, .. where importance is asked for, with the sum that is."""
    total = None if assignment.work is None else assignment.work.importance
    if total is None:
        return {}
    return scaled({module: float(place) for place, module in enumerate(assignment.trained_modules, 1)}, total)


def _target(modules: Mapping[str, tuple[int, int]]) -> Adapter:
    """A rank-one delta of norm 1 in the first module."""
    name, (out, inputs) = next(iter(modules.items()))
    a, b = torch.zeros(1, inputs), torch.zeros(out, 1)
    a[0, 0] = b[0, 0] = 1.0
    return Adapter({name: Factors(a, b)})
