"""Our messages as Flower's records: plain facts and one block of bytes, with a digest. No pickle, no numpy file.

RecordDict
  "fedloom"   ConfigRecord   the facts, and of the body its length ("bytes") and SHA-256 ("digest")
  "body"      ArrayRecord    "0", "1", ..: parts of at most PART bytes
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedloom.errors import AdapterError

FACTS, BODY = "fedloom", "body"
PART = 64 * 2**20
_STYPE = "fedloom.bytes"
Fact = str | int | float | bool


@dataclass(frozen=True)
class Envelope:
    """What travels in one direction. facts: small plain values.  body: an assignment, a contribution, or nothing."""

    facts: Mapping[str, Fact]
    body: bytes = b""

    def text(self, name: str) -> str:
        """A fact that is text. Raises: AdapterError if it is missing or something else."""
        value = self.facts.get(name)
        if not isinstance(value, str):
            raise AdapterError(
                "a fact of the message is not what it should be", where=name, expected="text", found=repr(value)[:80]
            )
        return value


def to_record(envelope: Envelope) -> RecordDict:
    """The records of one message."""
    body = envelope.body
    facts = {**envelope.facts, "bytes": len(body), "digest": hashlib.sha256(body).hexdigest()}
    starts = range(0, len(body), PART)
    parts = {str(number): _part(body[start : start + PART]) for number, start in enumerate(starts)}
    return RecordDict({FACTS: ConfigRecord({**facts}), BODY: ArrayRecord(parts)})


def from_record(record: RecordDict, *, at_most: int | None = None) -> Envelope:
    """What travelled. at_most: bytes of the body that can be meant; more are not looked at.

    Raises: AdapterError for records that are not ours, a body that is too long, cut short, or not what its digest says.
    """
    facts, parts = record.get(FACTS), record.get(BODY)
    if not isinstance(facts, ConfigRecord) or not isinstance(parts, ArrayRecord):
        raise AdapterError(
            "not a message of FedLoom", where="Flower's records", found=[repr(name)[:40] for name in record][:5]
        )
    known = dict(facts)
    length, digest = known.pop("bytes", None), known.pop("digest", None)
    size = sum(len(part.data) for part in parts.values())
    if length != size or (at_most is not None and size > at_most):
        expected = f"{length!r} bytes, and at most {at_most}"
        raise AdapterError("the body has another length than it may have", where="body", expected=expected, found=size)
    body = b"".join(_ordered(parts))
    if hashlib.sha256(body).hexdigest() != digest:
        raise AdapterError("the body is not what was sent", where="body", expected=f"digest {digest!r}")
    return Envelope({name: value for name, value in known.items() if isinstance(value, Fact)}, body)


def _part(data: bytes) -> Array:
    return Array(dtype="uint8", shape=(len(data),), stype=_STYPE, data=data)


def _ordered(parts: ArrayRecord) -> list[bytes]:
    names = [str(number) for number in range(len(parts))]
    if sorted(parts) != sorted(names):
        raise AdapterError("a part of the body is missing", where="body", expected=names[:5], found=sorted(parts)[:5])
    return [parts[name].data for name in names]
