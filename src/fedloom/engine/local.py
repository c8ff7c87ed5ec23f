"""The embedded engine: all clients in this process, one copy of the base model, adapters swapped in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedloom.engine.base import Ask, Federation, Reply, late, never
from fedloom.engine.client_half import ClientHalf
from fedloom.engine.events import ClientBegins, Observer, silent
from fedloom.engine.forming import LackingError
from fedloom.engine.sites import Sites
from fedloom.errors import FedLoomError
from fedloom.rounds.messages import Assignment, Dropout
from fedloom.rounds.wire import assignment_to_bytes, contribution_from_bytes
from fedloom.training.memory import release


@dataclass(frozen=True)
class LocalEngine:
    """Exchanges assignments with clients in this process, through the same bytes as any other transport.

    max_new_tokens, store, sums: as of `ClientHalf`.
    """

    sites: Sites
    observe: Observer = silent
    max_new_tokens: int = 48
    store: Path | None = None
    together: bool = False
    sums: dict[str, Any] = field(default_factory=dict)

    def describe(self) -> Federation:
        return self.sites.federation()

    def exchange(
        self, assignments: Iterable[Assignment], enough: Callable[[], bool] = never
    ) -> Iterator[Reply | Dropout]:
        """Clients finish in the order in which they are asked: when there are enough, the others do not begin."""
        client = self._clients()
        waiting = iter(assignments)
        while (answer := self._next(client, waiting, enough)) is not None:
            yield answer

    def overdue(self) -> Iterator[Reply | Dropout]:
        """Nothing: a client that is late has not begun."""
        return iter(())

    def limits(self) -> Mapping[str, float | None]:
        """Nothing: all clients are here, and have no site that says so."""
        return {}

    def give_up(self, client: str) -> None:
        """There is nothing to give up."""

    def relay(self, asked: Sequence[Ask]) -> Iterator[tuple[Ask, bytes | Dropout]]:
        clients = self._clients()
        for ask in asked:
            try:
                yield ask, clients.masked_answer(ask.client, ask.step, ask.body)
            except FedLoomError as error:
                yield ask, Dropout(ask.round, ask.client, str(error))

    def _clients(self) -> ClientHalf:
        return ClientHalf(
            self.sites, self.observe, max_new_tokens=self.max_new_tokens, store=self.store, sums=self.sums
        )

    def _next(
        self, client: ClientHalf, waiting: Iterator[Assignment], enough: Callable[[], bool]
    ) -> Reply | Dropout | None:
        """The answer to the next assignment, None behind the last. While a client works, its trunk is in its layers and
        nowhere else: nobody here keeps the assignment as it came, as a trunk may be as large as the layers.
        """
        assignment = next(waiting, None)
        if assignment is None:
            return None
        if assignment.kind == "train" and enough():
            return late(assignment)
        self.observe(ClientBegins(assignment.client, assignment.kind, assignment.round))
        again = ""
        try:
            received, size, again = _delivered(client, assignment)
            assignment = assignment.without_trunk()
            up = client.answer_loaded(received)
        except FedLoomError as error:
            return Dropout(assignment.round, assignment.client, str(error), again)
        finally:
            release()
        contribution = contribution_from_bytes(up, start=assignment.start.trainable, head=assignment.head)
        return Reply(assignment, contribution, bytes_down=size, bytes_up=len(up), asked_again=again)


def _delivered(client: ClientHalf, assignment: Assignment) -> tuple[Assignment, int, str]:
    """The assignment as it arrives at the client, its start in the layers, how many bytes it was, and why it was sent
    twice, if it was."""
    sent = assignment_to_bytes(assignment)
    try:
        return client.loaded(sent), len(sent), ""
    except LackingError as error:
        whole = assignment_to_bytes(replace(assignment, has=frozenset()))
        return client.loaded(whole), len(sent) + len(whole), str(error)
