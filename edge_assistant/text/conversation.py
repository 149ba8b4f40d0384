"""The order of a conversation, which is the same in every instruct format.

    [System] User (User | Assistant [ToolResult of each call])*

Neighbours of one role are one turn: their texts are joined by a blank line, as mistral-common joins them. Results
are not joined, each is a turn of its own. A conversation may end with calls that have no result yet, for that is
what a model is trained to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edge_assistant.errors import ConversationError
from edge_assistant.text.messages import Assistant, Message, System, ToolResult, User

_ID_LENGTH = 9


def checked(messages: Sequence[Message]) -> list[Message]:
    """Return the conversation as turns; ConversationError says which one is out of place."""
    turns: list[Message] = []
    unanswered: list[str | None] = []
    for message in messages:
        problem = _out_of_place(message, turns, unanswered)
        if problem is not None:
            raise ConversationError(len(turns) + 1, role_of(message), problem)
        if isinstance(message, Assistant):
            unanswered = [call.id for call in message.calls]
        elif isinstance(message, ToolResult):
            unanswered.remove(message.call_id)
        _append(turns, message)
    if not any(isinstance(turn, User) for turn in turns):
        raise ConversationError(len(turns) + 1, "user", "it is missing")
    if unanswered and isinstance(turns[-1], ToolResult):
        raise ConversationError(len(turns) + 1, "tool result", f"the call {unanswered[0]} has none")
    return turns


def in_order_of_calls(turns: Sequence[Message]) -> list[Message]:
    """Return checked turns, the results of a turn's calls in the order of those calls."""
    ordered: list[Message] = []
    for index, turn in enumerate(turns):
        if not isinstance(turn, ToolResult):
            ordered.append(turn)
        if isinstance(turn, Assistant):
            after = turns[index + 1 : index + 1 + len(turn.calls)]
            results = {result.call_id: result for result in after if isinstance(result, ToolResult)}
            ordered += (results[call.id] for call in turn.calls if call.id in results)
    return ordered


def role_of(message: Message) -> str:
    """Return whose message it is, in words."""
    return {System: "system", User: "user", Assistant: "assistant", ToolResult: "tool result"}[type(message)]


def _out_of_place(message: Message, turns: Sequence[Message], unanswered: Sequence[str | None]) -> str | None:
    """Return why the message cannot stand after these turns, None where it can."""
    if isinstance(message, ToolResult):
        return None if message.call_id in unanswered else f"the turn before has no open call {message.call_id}"
    if unanswered:
        return f"the call {unanswered[0]} has no result yet"
    if isinstance(message, System):
        return "the system text stands first, and once" if turns else None
    if isinstance(message, Assistant):
        return _malformed(message) if any(isinstance(turn, User) for turn in turns) else "a user speaks first"
    return None


def _malformed(message: Assistant) -> str | None:
    ids = [call.id for call in message.calls if call.id is not None]
    if not message.text and not message.calls:
        return "it has neither text nor calls"
    if len(set(ids)) < len(ids):
        return "two of its calls have the same id"
    bad = [call_id for call_id in ids if len(call_id) != _ID_LENGTH or not (call_id.isascii() and call_id.isalnum())]
    return f"the id {bad[0]!r} of its call is not nine letters or digits" if bad else None


def _append(turns: list[Message], message: Message) -> None:
    match turns[-1] if turns else None, message:
        case User(before), User(text):
            turns[-1] = User(_joined(before, text))
        case Assistant() as before, Assistant(text, calls):
            turns[-1] = replace(before, text=_joined(before.text, text), calls=before.calls + calls)
        case _:
            turns.append(message)


def _joined(first: str, second: str) -> str:
    return f"{first}\n\n{second}" if first and second else first or second
