"""A client's part in one secure sum, bytes in and bytes out: the state is replaced at every step, and never goes back.

So nobody can ask for a second set of survivors, or for the other share of a peer: the state that could answer is gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedloom.errors import RunError
from fedloom.privacy.entropy import Bytes
from fedloom.privacy.secagg import client
from fedloom.privacy.secagg.masks import Words, to_message
from fedloom.privacy.secagg.messages import Agreement, Delivery, Roster, Survivors
from fedloom.privacy.secagg.terms import Terms

ROSTER, DELIVERY, SURVIVORS, AGREEMENT = STEPS = ("roster", "delivery", "survivors", "agreement")


@dataclass
class ClientSession:
    """known: as of `client.deal`. The words are forgotten once they are masked.

    release: what whoever began the session calls what is masked; "" for nothing that is counted.
    """

    terms: Terms
    _state: Any
    _words: Words | None = field(repr=False)
    _entropy: Bytes = field(repr=False)
    _known: Mapping[str, bytes]
    _next: int = 0
    release: str = ""

    @classmethod
    def begin(
        cls,
        terms: Terms,
        name: str,
        words: Words,
        *,
        identity: bytes,
        entropy: Bytes,
        known: Mapping[str, bytes] = client.NOBODY,
        release: str = "",
    ) -> tuple[ClientSession, bytes]:
        """The session and the client's advertisement."""
        state, own = client.advertise(terms, name, identity, entropy)
        return cls(terms, state, words, entropy, known, release=release), own.to_bytes()

    def answer(self, step: str, body: bytes) -> bytes:
        """The client's message of a step. A step that fails, or comes out of turn, ends the session.

        Raises: RunError, ContributionRefusedError, AdapterError as the steps do.
        """
        expected = STEPS[self._next] if self._state is not None else "nothing, as the session is over"
        if step != expected:
            self._forget()
            raise RunError("a step of a secure sum out of its turn", expected=expected, found=repr(step)[:40])
        state, self._state, self._next = self._state, None, self._next + 1
        try:
            self._state, answer = getattr(self, f"_{step}")(state, body, len(self.terms.clients))
        except Exception:
            self._forget()
            raise
        return answer

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be answered."""
        return self._state is None

    def _forget(self) -> None:
        self._state = self._words = None

    def _roster(self, state: client.Advertised, body: bytes, clients: int) -> tuple[client.Dealt, bytes]:
        dealt, dealing = client.deal(state, Roster.from_bytes(body, clients=clients), self._entropy, self._known)
        return dealt, dealing.to_bytes()

    def _delivery(self, state: client.Dealt, body: bytes, clients: int) -> tuple[client.Masked, bytes]:
        words, self._words = self._words, None
        assert words is not None
        after, masked = client.mask(state, Delivery.from_bytes(body, clients=clients), words)
        return after, to_message(masked)

    def _survivors(self, state: client.Masked, body: bytes, clients: int) -> tuple[client.Confirmed, bytes]:
        after, confirmation = client.confirm(state, Survivors.from_bytes(body, clients=clients))
        return after, confirmation.to_bytes()

    def _agreement(self, state: client.Confirmed, body: bytes, clients: int) -> tuple[None, bytes]:
        return None, client.reveal(state, Agreement.from_bytes(body, clients=clients)).to_bytes()
