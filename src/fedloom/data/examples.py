"""What a client learns from: frozen values, made from its rows."""

from __future__ import annotations

from dataclasses import dataclass


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


Example = Generation | Classification
