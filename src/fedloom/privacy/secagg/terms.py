"""What all agree on before a secure sum, and what every key, share and signature of it is bound to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fedloom.errors import RunError
from fedloom.privacy.secagg.keys import KEY_BYTES, digest

FEWEST = 2  # who share a sum: alone, a client's numbers would be the sum
MOST_WORDS = 2**34


@dataclass(frozen=True)
class Terms:
    """What all agree on before a secure sum.

    round_id: 32 bytes that no other sum has.  clients: in sorted order.  length: words of a vector.
    threshold: so many must answer at every step. More than half, so that no two sets of clients can both be told that
        they are the survivors.
    """

    round_id: bytes
    clients: tuple[str, ...]
    threshold: int
    length: int

    def __post_init__(self) -> None:
        if len(self.round_id) != KEY_BYTES or list(self.clients) != sorted(set(self.clients)):
            raise RunError(
                "not the terms of a secure sum", expected=f"an id of {KEY_BYTES} bytes, and clients in sorted order"
            )
        least, most = max(FEWEST, len(self.clients) // 2 + 1), len(self.clients)
        if not least <= self.threshold <= most:
            raise RunError(
                "the threshold of a secure sum is more than half of its clients, and at most all",
                expected=f"{least} to {most}",
                found=self.threshold,
                do="Set [secure_aggregation] threshold, or let more clients take part",
            )
        if not 0 < self.length <= MOST_WORDS:
            raise RunError("the length of a secure sum", expected=f"1 to {MOST_WORDS} words", found=self.length)

    @cached_property
    def tag(self) -> bytes:
        """What binds every key, share and signature to these terms."""
        counts = f"{self.threshold} {self.length}".encode()
        return digest(b"fedloom secure sum 1", self.round_id, counts, *(name.encode() for name in self.clients))

    def point(self, client: str) -> int:
        """Where the shares of this client lie."""
        return self.clients.index(client) + 1

    def require(self, present: int, step: str, faults: object = None) -> None:
        """Raises: RunError below the threshold."""
        if present < self.threshold:
            raise RunError(
                "too few clients are left for a secure sum; nothing was revealed",
                where=step,
                expected=f"at least {self.threshold} of {len(self.clients)}",
                found=f"{present}" if not faults else f"{present}; {faults}",
                do="The last committed round is intact: let the clients come back and resume",
            )


def commitment(terms: Terms, kind: bytes, dealer: str, holder: str, share: bytes) -> bytes:
    """To one share; kind: b"mask" or b"seed"."""
    return digest(b"share", terms.tag, kind, dealer.encode(), holder.encode(), share)


def commitment_to_seed(terms: Terms, dealer: str, seed: bytes) -> bytes:
    return digest(b"seed", terms.tag, dealer.encode(), seed)


def pair_context(terms: Terms, one: str, other: str) -> tuple[bytes, ...]:
    """Of the mask that two clients share: the same for both."""
    low, high = sorted((one, other))
    return b"pairwise mask", terms.tag, low.encode(), high.encode()


def seal_context(terms: Terms, roster: bytes, sender: str, receiver: str) -> tuple[bytes, ...]:
    """Of shares on their way from one client to another."""
    return b"sealed shares", terms.tag, roster, sender.encode(), receiver.encode()


def survivors_context(terms: Terms, roster: bytes, dealers: tuple[str, ...], survivors: tuple[str, ...]) -> list[bytes]:
    """What a client signs before it reveals anything: everything that it was told so far."""
    dealt = digest(*(name.encode() for name in dealers))
    return [b"survivors", terms.tag, roster, dealt, *(name.encode() for name in survivors)]
