"""Several assignments, or their answers, in the body of one message.

    body = for each part: 8 bytes, its length, big-endian; then its bytes
A client that cannot answer one of several assignments says why in that part, and answers the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedloom.errors import AdapterError

_LENGTH = 8
_REASON = b"fedloom cannot: "
_LACKING = _REASON + b"it lacks something: "


def framed(parts: Sequence[bytes]) -> bytes:
    """All parts in one block."""
    return b"".join(piece for part in parts for piece in (len(part).to_bytes(_LENGTH, "big"), part))


def parts_of(body: bytes, count: int | None = None) -> list[bytes]:
    """The parts again. Raises: AdapterError for another number of them, or a length that goes beyond the body."""
    found: list[bytes] = []
    at = 0
    while at < len(body):
        begin = at + _LENGTH
        at = begin + int.from_bytes(body[at:begin], "big")
        if begin > len(body) or at > len(body):
            raise AdapterError("a part of the body is cut short", where=f"part {len(found)}", found=len(body) - begin)
        found.append(body[begin:at])
    if count is not None and len(found) != count:
        raise AdapterError("the body has another number of parts", expected=count, found=len(found))
    return found


def reason(text: str) -> bytes:
    """A part that says why there is no answer."""
    return _REASON + text.encode()


def lacking(text: str) -> bytes:
    """A part that says that the client lacks what it was believed to have."""
    return _LACKING + text.encode()


def is_lacking(part: bytes) -> bool:
    """Whether that is what a part says; `reason_in` has the words."""
    return part.startswith(_LACKING)


def reason_in(part: bytes) -> str | None:
    """What such a part says; None for an answer."""
    return part[len(_REASON) :].decode(errors="replace") if part.startswith(_REASON) else None
