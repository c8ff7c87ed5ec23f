"""What clients and the server of a secure sum say to each other, as bytes: JSON of a closed form, vectors as words.

1 client -> server   Advertisement   its two public keys, signed
2 server -> clients  Roster          all of them
  client -> server   Dealing         shares of its secrets, sealed for each peer
3 server -> client   Delivery        what the peers sealed for it
  client -> server   (words)         its numbers under all masks
4 server -> clients  Survivors       whose numbers arrived
  client -> server   Confirmation    the same, signed
5 server -> clients  Agreement       the signatures
  client -> server   Revelation      one share for each peer: of its seed, or of its mask key
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedloom.errors import AdapterError
from fedloom.privacy.secagg.keys import KEY_BYTES, SIGNATURE_BYTES, TAG_BYTES, digest
from fedloom.privacy.secagg.shamir import SHARE_BYTES
from fedloom.privacy.secagg.terms import Terms

Name = Annotated[str, Field(min_length=1, max_length=200)]


def _exactly(length: int) -> object:
    return Field(min_length=length, max_length=length)


Key = Annotated[bytes, _exactly(KEY_BYTES)]
Signature = Annotated[bytes, _exactly(SIGNATURE_BYTES)]
Share = Annotated[bytes, _exactly(SHARE_BYTES)]
Sealed = Annotated[bytes, _exactly(2 * SHARE_BYTES + TAG_BYTES)]


class Message(BaseModel):
    """A frozen message; bytes are hexadecimal in its JSON."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, ser_json_bytes="hex", val_json_bytes="hex", hide_input_in_errors=True
    )

    def to_bytes(self) -> bytes:
        return self.model_dump_json().encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, clients: int) -> Self:
        """The message again. clients: of the sum, which bounds its size. Raises: AdapterError for bytes that are none.

        The size is looked at first, so that nothing large is read that cannot be meant.
        """
        at_most = (clients + 1) * LARGEST_PART
        where = cls.__name__.lower()
        if len(data) > at_most:
            raise AdapterError("the message is too long", where=where, expected=f"{at_most} bytes", found=len(data))
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, found["loc"]))
            raise AdapterError(
                "not a message of a secure sum", where=f"{where}, {place}", found=found["msg"]
            ) from error


LARGEST_PART = 2048  # bytes that a message has for each client at most: a name, two keys, a signature, in hexadecimal


class Advertisement(Message):
    """mask_key: public half of the key that pairwise masks come from; of a client that drops out, it is recovered.
    seal_key: of the key that shares are sealed with; it is never revealed.  identity: that signs.
    """

    client: Name
    mask_key: Key
    seal_key: Key
    identity: Key
    signature: Signature

    @property
    def signed(self) -> tuple[bytes, ...]:
        """What the signature is of, after the tag of the terms."""
        return b"advertisement", self.client.encode(), self.mask_key, self.seal_key


class Roster(Message):
    clients: tuple[Advertisement, ...]

    def digest(self, terms: Terms) -> bytes:
        """Of all keys, so that clients that were told different ones notice it."""
        return digest(b"roster", terms.tag, *(part for one in self.clients for part in (one.identity, *one.signed)))


class Commitments(Message):
    """Of one holder's shares, so that a wrong one can be told, and whose fault it is."""

    mask_share: Key
    seed_share: Key


class Dealing(Message):
    """sealed: holder -> its two shares, for every peer.  commitments: holder -> of its shares; the client itself too.
    seed: commitment to the seed of its own mask.
    """

    client: Name
    sealed: Mapping[Name, Sealed]
    commitments: Mapping[Name, Commitments]
    seed: Key


class Delivery(Message):
    """Dealer -> what it sealed for this client, and what it committed to."""

    sealed: Mapping[Name, Sealed]
    commitments: Mapping[Name, Commitments]


class Survivors(Message):
    clients: tuple[Name, ...]


class Confirmation(Message):
    client: Name
    signature: Signature


class Agreement(Message):
    signatures: Mapping[Name, Signature]


class Revelation(Message):
    """seeds: survivor -> share of the seed of its own mask.  masks: who dropped out -> share of its mask key."""

    client: Name
    seeds: Mapping[Name, Share]
    masks: Mapping[Name, Share]
