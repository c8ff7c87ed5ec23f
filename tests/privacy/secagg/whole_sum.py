"""A whole secure sum in one process, with clients that are lost before any step, and messages that are changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedloom.privacy.secagg import server
from fedloom.privacy.secagg.masks import Words, to_words
from fedloom.privacy.secagg.messages import Advertisement, Confirmation, Dealing, Revelation
from fedloom.privacy.secagg.session import AGREEMENT, DELIVERY, ROSTER, SURVIVORS, ClientSession
from fedloom.privacy.secagg.terms import Terms
from fedloom.testing.insecure import InsecureBytes


def unchanged(_step: str, _client: str, body: bytes) -> bytes:
    """A message that arrives as it was sent."""
    return body


Change = Callable[[str, str, bytes], bytes]  # step, client, body -> body


def words_of(count: int, length: int, seed: int = 0) -> dict[str, Words]:
    """Numbers of so many clients, c00, c01, .."""
    draws = np.random.default_rng(seed)
    return {f"c{number:02d}": draws.integers(0, 2**40, length, dtype=np.uint64) for number in range(count)}


def terms_of(words: Mapping[str, Words], threshold: int, round_id: bytes = bytes(32)) -> Terms:
    return Terms(round_id, tuple(sorted(words)), threshold, len(next(iter(words.values()))))


@dataclass
class WholeSum:
    """gone: step (0 to 5) -> clients that do not answer from there on.  down, up: what becomes of messages."""

    terms: Terms
    words: Mapping[str, Words]
    gone: Mapping[int, Collection[str]] = field(default_factory=dict)
    down: Change = unchanged
    up: Change = unchanged
    seed: int = 0
    sessions: dict[str, ClientSession] = field(default_factory=dict)
    seen: dict[tuple[str, str], bytes] = field(default_factory=dict)  # (step, client) -> what it answered

    def run(self) -> server.Unmasked:
        entropy, size = InsecureBytes(self.seed), len(self.terms.clients)
        advertised = {}
        for client in self._there(0, self.terms.clients):
            session, own = ClientSession.begin(
                self.terms, client, self.words[client], identity=entropy(32), entropy=entropy
            )
            self.sessions[client] = session
            advertised[client] = Advertisement.from_bytes(self.up("advertise", client, own), clients=size)
        opened = server.open_round(self.terms, advertised)
        roster = opened.roster.to_bytes()
        shared = server.share(opened, self._ask(1, ROSTER, opened.clients, lambda _: roster, Dealing))
        masked = self._ask(2, DELIVERY, shared.clients, lambda client: shared.delivery(client).to_bytes(), None)
        summed = server.add_up(shared, masked.items())
        told = summed.survivors.to_bytes()
        agreed = server.agree(summed, self._ask(3, SURVIVORS, summed.clients, lambda _: told, Confirmation))
        signed = agreed.agreement.to_bytes()
        return server.unmask(agreed, self._ask(4, AGREEMENT, agreed.clients, lambda _: signed, Revelation))

    def _ask(self, number: int, step: str, clients: Collection[str], body: Callable[[str], bytes], kind: Any) -> dict:
        found = {}
        for client in self._there(number, clients):
            told = self.down(step, client, body(client))
            self.seen[step, client] = answer = self.up(step, client, self.sessions[client].answer(step, told))
            size = len(self.terms.clients)
            found[client] = to_words(answer) if kind is None else kind.from_bytes(answer, clients=size)
        return found

    def _there(self, number: int, clients: Collection[str]) -> list[str]:
        gone = {client for step in range(number + 1) for client in self.gone.get(step, ())}
        return [client for client in clients if client not in gone]


def plain_sum(words: Mapping[str, Words], clients: Collection[str]) -> Words:
    return sum((words[client] for client in clients), np.zeros_like(next(iter(words.values()))))
