"""What malicious clients do: for tests and benchmarks alone.

An attack on a contribution is a function of what was asked and what an honest client would have sent; an attack on data
is a function of rows. `Attacked` puts the former between any engine and the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedloom import rng
from fedloom.adapters.factors import Factors
from fedloom.engine.base import Ask, Engine, Federation, Reply, never
from fedloom.engine.drive import drive
from fedloom.engine.local import LocalEngine
from fedloom.engine.loop import Loop, loop_of
from fedloom.engine.sites import Sites, lasting_facts
from fedloom.rounds.messages import Assignment, Contribution, Dropout
from fedloom.rounds.state import RunState
from fedloom.spec.dump import dump
from fedloom.spec.experiment import Experiment
from fedloom.store.run_directory import RunDirectory

Attack = Callable[[Assignment, Contribution], Contribution]
Row = Mapping[str, Any]
LARGE = 100.0  # times its own change, of a client that wants to be heard


def moved(assignment: Assignment, honest: Contribution, move: Callable[[Tensor, Tensor, str], Tensor]) -> Contribution:
    """The contribution with move(start, new, name) in place of every tensor that it may change. Of factors that is b,
    or a where b is frozen: the delta changes in proportion."""

    def of_module(module: str, new: Factors) -> Factors:
        old, sides = assignment.start.trainable[module], assignment.sends[module]
        if "b" in sides and new.rank == old.rank:
            return Factors(new.a, move(old.b, new.b, f"{module}|b"), new.scaling)
        if "a" in sides and new.rank == old.rank:
            return Factors(move(old.a, new.a, f"{module}|a"), new.b, new.scaling)
        return new

    head = {name: move(assignment.head[name], new, name) for name, new in honest.head.items()}
    return replace(honest, adapter=honest.adapter.map(of_module), head=head)


def scaled(factor: float = LARGE) -> Attack:
    """What was learned, so many times over."""
    return lambda asked, honest: moved(asked, honest, lambda old, new, _: old + factor * (new - old))


def sign_flip(factor: float = 1.0) -> Attack:
    """The opposite of what was learned."""
    return scaled(-factor)


def random_change(factor: float = 1.0) -> Attack:
    """Noise of the length of what was learned, times a factor; drawn from the assignment's seed."""

    def attack(asked: Assignment, honest: Contribution) -> Contribution:
        def noise(old: Tensor, new: Tensor, name: str) -> Tensor:
            drawn = torch.randn(new.shape, generator=rng.generator(asked.seed, "attack", name)).to(new)
            return old + drawn * (factor * float((new - old).norm()) / max(float(drawn.norm()), 1e-30))

        return moved(asked, honest, noise)

    return attack


def free_rider(asked: Assignment, honest: Contribution) -> Contribution:
    """What it began from, for nothing."""
    return replace(honest, adapter=asked.start.trainable, head=dict(asked.head))


def colluding(seed: int = 0, factor: float = 3.0) -> Attack:
    """All who use it send one crafted change: one column, drawn once for each tensor, at every rank index, `factor`
    times as long as what each learned. So clients of unequal ranks say the same."""

    def attack(asked: Assignment, honest: Contribution) -> Contribution:
        def crafted(old: Tensor, new: Tensor, name: str) -> Tensor:
            line = torch.randn(new.shape[0], 1, generator=rng.generator(seed, "collusion", name)).to(new)
            drawn = line.expand(new.shape) if new.ndim > 1 else line[:, 0]
            return old + drawn * (factor * float((new - old).norm()) / max(float(drawn.norm()), 1e-30))

        return moved(asked, honest, crafted)

    return attack


def label_flip(rows: Sequence[Row], labels: Sequence[str], column: str = "label") -> list[dict[str, Any]]:
    """Every row with the label that follows its own in the list."""
    after = dict(zip(labels, [*labels[1:], labels[0]], strict=True))
    return [{**row, column: after[row[column]]} for row in rows]


def backdoor(
    rows: Sequence[Row], trigger: str, target: str, *, text: str = "text", column: str = "label", share: float = 1.0
) -> list[dict[str, Any]]:
    """The first `share` of the rows with a trigger word before their text, and the label that it is to mean."""
    poisoned = round(share * len(rows))
    return [
        {**row, text: f"{trigger} {row[text]}", column: target} if place < poisoned else dict(row)
        for place, row in enumerate(rows)
    ]


@dataclass(frozen=True)
class Attacked:
    """An engine some of whose clients attack. attack: what becomes of their trained contributions."""

    engine: Engine
    attackers: Collection[str]
    attack: Attack

    @property
    def together(self) -> bool:
        return self.engine.together

    def describe(self) -> Federation:
        return self.engine.describe()

    def exchange(
        self, assignments: Iterable[Assignment], enough: Callable[[], bool] = never
    ) -> Iterator[Reply | Dropout]:
        for answer in self.engine.exchange(assignments, enough):
            yield self._on_its_way(answer)

    def overdue(self) -> Iterator[Reply | Dropout]:
        return map(self._on_its_way, self.engine.overdue())

    def limits(self) -> Mapping[str, float | None]:
        return self.engine.limits()

    def give_up(self, client: str) -> None:
        self.engine.give_up(client)

    def relay(self, asked: Sequence[Ask]) -> Iterator[tuple[Ask, bytes | Dropout]]:
        return self.engine.relay(asked)

    def _on_its_way(self, answer: Reply | Dropout) -> Reply | Dropout:
        if isinstance(answer, Dropout) or answer.assignment.kind != "train":
            return answer
        if answer.assignment.client not in self.attackers:
            return answer
        return replace(answer, contribution=self.attack(answer.assignment, answer.contribution))


def attacked_run(
    experiment: Experiment, path: Path, sites: Sites, attackers: Collection[str], attack: Attack
) -> tuple[Loop, RunState]:
    """All rounds in this process, with some clients that attack: the loop, whose journal says what came of it, and the
    last state. path: of the run's directory, which is not there yet."""
    with RunDirectory.create(path, dump(experiment), lasting_facts(sites)) as directory:
        engine = Attacked(LocalEngine(sites, store=directory.clients), attackers, attack)
        loop = loop_of(experiment, directory, engine, stages=frozenset({"base", "round"}))
        return loop, drive(loop)
