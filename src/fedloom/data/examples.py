"""What a client learns from: frozen values, made from its rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Message:
    """One turn of a chat. role: system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True)
class Generation:
    """A chat whose last message is the assistant's answer; only that answer is learned."""

    messages: tuple[Message, ...]

    @property
    def prompt_messages(self) -> tuple[Message, ...]:
        return self.messages[:-1]

    @property
    def response(self) -> str:
        return self.messages[-1].content


@dataclass(frozen=True)
class Classification:
    """A text and the name of its class."""

    text: str
    label: str


@dataclass(frozen=True)
class Image:
    """One picture, equal to every other of the same bytes and shape.

    content: the bytes of an image file, or with a shape (height, width, channels) the pixels themselves, row by row.
    where: client, source, row and column, for messages.
    """

    digest: str
    shape: tuple[int, int, int] | None
    content: bytes = field(repr=False, compare=False)
    where: str = field(repr=False, compare=False)

    @classmethod
    def of(cls, content: bytes, shape: tuple[int, int, int] | None, where: str) -> Image:
        return cls(hashlib.sha256(content).hexdigest(), shape, content, where)


@dataclass(frozen=True)
class ImageClassification:
    """A picture and the name of its class."""

    image: Image
    label: str


Labelled = Classification | ImageClassification
Example = Generation | Labelled
