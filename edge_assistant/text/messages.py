"""What a conversation is made of, before any instruct format lays it out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call: its name, a sentence on what it does, the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call the model made. The id, nine letters or digits, is given by the runtime, never by the model."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class System:
    """The instructions a conversation starts with."""

    text: str


@dataclass(frozen=True, slots=True)
class User:
    """What the person (or a device) said."""

    text: str


@dataclass(frozen=True, slots=True)
class Assistant:
    """What the model answered: text, calls, or both."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of a call."""

    call_id: str
    text: str


Message = System | User | Assistant | ToolResult


def spoken(messages: Iterable[Message]) -> str:
    """Return what was said in the messages, by both sides."""
    return "\n".join(message.text for message in messages if isinstance(message, (User, Assistant)))
