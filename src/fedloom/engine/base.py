"""What the loop needs of an engine: to know the clients, and to exchange assignments for answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from fedloom.rounds.messages import Assignment, Contribution, Dropout, Late


@dataclass(frozen=True)
class ClientRows:
    """What a client registers: counts of rows, nothing of their content."""

    train: int
    held_out: int
    dropped: int


@dataclass(frozen=True)
class Federation:
    """The facts that must be known before round 1.

    modules: name -> (out, in) of the layers that carry LoRA.  head: the trainables that are not LoRA, as they begin.
    base_digest: of the base's weights; all clients must have the same.
    """

    base: str
    base_digest: str
    dtype: str
    modules: Mapping[str, tuple[int, int]]
    head: Mapping[str, Tensor]
    rows: Mapping[str, ClientRows]
    labels: tuple[str, ...] = ()
    targets_rule: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """One answer and what it cost on the wire. assignment: that which was answered, without its trunk.

    busy_seconds: that the client's process had for all of a message, where there is a message; else 0.
    asked_again: why the client was asked twice, if it was; bytes_down are those of both.
    """

    assignment: Assignment
    contribution: Contribution
    bytes_down: int
    bytes_up: int
    busy_seconds: float = 0.0
    asked_again: str = ""


def never() -> bool:
    """There are never enough: every answer is waited for."""
    return False


@dataclass(frozen=True)
class Ask:
    """One step of a secure sum for one client. at_most: bytes that its answer can have."""

    round: int
    client: str
    step: str
    body: bytes
    at_most: int


ENOUGH = "enough others had answered"


def late(assignment: Assignment, reason: str = ENOUGH, *, underway: bool = False) -> Late:
    """That an assignment is not waited for. underway: its answer is taken all the same when it comes."""
    return Late(assignment.round, assignment.client, reason, underway=underway)


class Engine(Protocol):
    """Carries assignments to clients and their answers back.

    together: whether several assignments of one client in an exchange cost less than one after the other.
    """

    @property
    def together(self) -> bool: ...

    def describe(self) -> Federation:
        """The clients and their base. Raises: FedLoomError if one of them cannot take part."""
        ...

    def exchange(
        self, assignments: Iterable[Assignment], enough: Callable[[], bool] = never
    ) -> Iterator[Reply | Dropout]:
        """One reply or dropout per assignment, in the order of the assignments of each client, and over clients too as
        long as there is no `enough`.

        enough: whether no further training is waited for, asked whenever one would be: the others are `Late`.
        """
        ...

    def overdue(self) -> Iterator[Reply | Dropout]:
        """What has come by now of trainings that were `Late` and underway; nobody waits. Each answer comes once."""
        ...

    def limits(self) -> Mapping[str, float | None]:
        """client -> bytes that its site says that training may take, None for no limit; without those that said nothing
        yet. Asked between rounds; a site that joins again may say something else."""
        ...

    def give_up(self, client: str) -> None:
        """An answer that is underway is not taken any more."""
        ...

    def relay(self, asked: Sequence[Ask]) -> Iterator[tuple[Ask, bytes | Dropout]]:
        """The clients' answers to one step of a secure sum, in the order that was asked."""
        ...
