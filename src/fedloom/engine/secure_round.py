"""The server half of a secure round: clients trained and wait; their sum is asked for, step by step.

Clients that are lost on the way are journaled, and their masks recovered; below the threshold the round fails, the last
committed one is intact, and nothing was revealed. Needs `fedloom[privacy]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from fedloom.engine.base import Ask, Engine, Reply
from fedloom.errors import AdapterError, ContributionRefusedError, RunError
from fedloom.privacy.secagg import server
from fedloom.privacy.secagg.masks import Words, to_words
from fedloom.privacy.secagg.messages import (
    LARGEST_PART,
    Advertisement,
    Confirmation,
    Dealing,
    Message,
    Revelation,
)
from fedloom.privacy.secagg.session import AGREEMENT, DELIVERY, ROSTER, SURVIVORS
from fedloom.privacy.secagg.terms import Terms
from fedloom.rounds.masking import layout_of, terms_of, to_tally
from fedloom.rounds.messages import Dropout, Masking
from fedloom.rounds.noise_shares import fixed_point_for
from fedloom.rounds.step import Tally

M = TypeVar("M", bound=Message)


class Journal(Protocol):
    """Where it is written what became of whom."""

    def __call__(self, kind: str, /, **fields: Any) -> None: ...


def nothing() -> None:
    """A sum that is not counted anywhere."""


@dataclass
class SecureRound:
    """One secure sum. round: that it belongs to.  traffic: client -> bytes to it and from it, beside its reply.

    opening: called before clients are asked for shares, with which the sum can be read; it may raise.
    """

    engine: Engine
    journal: Journal
    round: int
    terms: Terms
    opening: Callable[[], None] = nothing
    traffic: dict[str, list[int]] = field(default_factory=dict)

    def sum(self, replies: Sequence[Reply]) -> server.Unmasked:
        """Raises: RunError below the threshold; ContributionRefusedError naming a client whose shares do not fit."""
        advertised = self._advertised(replies)
        opened = server.open_round(self.terms, advertised)
        roster = opened.roster.to_bytes()
        dealt = self._asked(ROSTER, opened.clients, lambda _: roster, Dealing)
        shared = server.share(opened, dealt)
        summed = server.add_up(shared, self._masked(shared))
        told = summed.survivors.to_bytes()
        agreed = server.agree(summed, self._asked(SURVIVORS, summed.clients, lambda _: told, Confirmation))
        self.opening()
        signed = agreed.agreement.to_bytes()
        return server.unmask(agreed, self._asked(AGREEMENT, agreed.clients, lambda _: signed, Revelation))

    def _advertised(self, replies: Sequence[Reply]) -> dict[str, Advertisement]:
        found = {}
        for reply in replies:
            client = reply.assignment.client
            try:
                body = bytes.fromhex(reply.contribution.advertisement)
                found[client] = Advertisement.from_bytes(body, clients=1)
            except (AdapterError, ValueError) as error:
                self.refused(client, f"client {client!r}: {error}")
        return found

    def _masked(self, shared: server.Shared) -> Iterator[tuple[str, Words]]:
        """One vector at a time, so that only one is in memory beside the sum."""
        at_most = 8 * self.terms.length
        for client, body in self._answers(
            DELIVERY, shared.clients, lambda client: shared.delivery(client).to_bytes(), at_most
        ):
            if len(body) == at_most:
                yield client, to_words(body)
            else:
                self.refused(client, f"client {client!r}: its masked numbers are {len(body)} bytes, not {at_most}")

    def _asked(self, step: str, clients: Sequence[str], body: Callable[[str], bytes], kind: type[M]) -> dict[str, M]:
        """What clients answer to one step; who does not, or with something else, is journaled."""
        size, found = len(self.terms.clients), {}
        for client, answer in self._answers(step, clients, body, (size + 1) * LARGEST_PART):
            try:
                found[client] = kind.from_bytes(answer, clients=size)
            except AdapterError as error:
                self.refused(client, f"client {client!r}: {error}")
        return found

    def _answers(
        self, step: str, clients: Sequence[str], body: Callable[[str], bytes], at_most: int
    ) -> Iterator[tuple[str, bytes]]:
        asked = [Ask(self.round, client, step, body(client), at_most) for client in clients]
        for ask, answer in self.engine.relay(asked):
            if isinstance(answer, Dropout):
                reason = f"secure sum, {step}: {answer.reason}"
                self.journal("dropout", round=self.round, client=ask.client, reason=reason)
                continue
            known = self.traffic.setdefault(ask.client, [0, 0])
            known[0] += len(ask.body)
            known[1] += len(answer)
            yield ask.client, answer

    def refused(self, client: str, reason: str) -> None:
        self.journal("refused", round=self.round, client=client, module=None, reason=reason)


def secure_tally(
    engine: Engine,
    journal: Journal,
    masking: Masking,
    replies: Sequence[Reply],
    opening: Callable[[], None] = nothing,
) -> Tally:
    """The tally of a round whose clients trained and advertised: the sum of those who stayed. opening: as above.

    Raises: RunError if the sum cannot be had; nothing of any one client was revealed then.
    """
    if not replies:
        return Tally()
    first = replies[0].assignment
    layout = layout_of(masking, first)
    secure = SecureRound(engine, journal, first.round, terms_of(masking, layout), opening)
    try:
        unmasked = secure.sum(replies)
    except ContributionRefusedError as error:
        secure.refused(error.client, str(error))
        raise RunError(
            "the secure sum cannot be known",
            where=f"round {first.round}",
            found=str(error),
            do="The last committed round is intact: repair that client, or leave it out, and resume",
        ) from error
    for fault in unmasked.faults:
        secure.refused(fault.client, str(fault))
    _journal_contributions(journal, replies, unmasked, secure.traffic)
    fixed = fixed_point_for(masking, layout)
    tally, missed = to_tally(fixed.decode(unmasked.words), layout, unmasked.clients)
    journal(
        "secure_sum",
        round=first.round,
        threshold=masking.threshold,
        clients=list(unmasked.clients),
        lost=list(unmasked.lost),
        numbers=layout.length,
        fraction_bits=fixed.bits,
        **({"sketch_error": missed} if layout.sketches else {}),
    )
    return tally


def _journal_contributions(
    journal: Journal, replies: Sequence[Reply], unmasked: server.Unmasked, traffic: Mapping[str, list[int]]
) -> None:
    """What those whose numbers are in the sum said openly, and what their part of it cost on the wire."""
    for reply in replies:
        client = reply.assignment.client
        if client not in unmasked.clients:
            continue
        down, up = traffic.get(client, [0, 0])
        journal(
            "contribution",
            round=reply.assignment.round,
            client=client,
            bytes_down=reply.bytes_down + down,
            bytes_up=reply.bytes_up + up,
            **({"busy_seconds": reply.busy_seconds} if reply.busy_seconds else {}),
            **({"ledger": reply.contribution.ledger} if reply.contribution.ledger else {}),
            **reply.contribution.metrics,
        )
