"""A chat as data sets write it: {role, content}, or {from, value}."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from fedloom.data.examples import Message
from fedloom.data.text import encodable
from fedloom.errors import DataError

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "tool": "tool",
}


def messages_of(value: Any, where: str) -> tuple[Message, ...]:
    """The messages up to the last answer of the assistant; empty where it never answers.

    Raises: DataError for something that is not a list of messages, a role that is not known, or half a character.
    """
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise DataError("not a chat", where=where, expected="a list of {role, content}", found=type(value).__name__)
    messages = [_message(item, f"{where}, message {number}") for number, item in enumerate(value, 1)]
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    return tuple(messages[: answers[-1] + 1]) if answers else ()


def _message(item: Any, where: str) -> Message:
    keys = set(item) if isinstance(item, Mapping) else set()
    names = next((pair for pair in (("role", "content"), ("from", "value")) if keys.issuperset(pair)), None)
    if names is None:
        found = ", ".join(sorted(map(str, keys))) or type(item).__name__
        raise DataError("not a message", where=where, expected="{role, content} or {from, value}", found=found)
    role, content = item[names[0]], item[names[1]]
    known = ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        nearest = difflib.get_close_matches(str(role), ROLES, n=1)
        do = f"Did you mean {nearest[0]}?" if nearest else None
        raise DataError("unknown role", where=where, expected=" or ".join(ROLES), found=repr(role), do=do)
    return Message(known, _content(content, where))


def _content(content: Any, where: str) -> str:
    """The text of a message; of one in parts, the texts of the parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return encodable(content, where).strip()
    if isinstance(content, Sequence) and all(isinstance(part, Mapping) and "text" in part for part in content):
        return encodable("\n".join(str(part["text"] or "") for part in content), where).strip()
    raise DataError("the content of a message is not text", where=where, found=type(content).__name__)
