"""A reply as the model wrote it, in ids: what it says, what it thinks, what it calls.

    "Sure."[TOOL_CALLS]"[{"name": "T", "arguments": {}}]"                      v2 to v7: one JSON list
    "Sure."[TOOL_CALLS]"T"[CALL_ID]"id"[ARGS]"{}"[TOOL_CALLS]"U"[ARGS]"{}"     v11, with ids or without; v13, without
    [THINK]"Which lamp?"[/THINK]"Sure."                                        v13, where the vocabulary has the marks

A thought is dropped: it is not shown, nothing in it is a call, and no later prompt repeats it. It ends at the first
`[/THINK]`; one that does not end takes the rest of the reply. After `[TOOL_CALLS]` everything belongs to the calls.

Calls are taken as they stand, all of them or none. Nothing is mended: a guessed call could open the wrong door.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edge_assistant.errors import ToolCallError
from edge_assistant.text.messages import Assistant, ToolCall
from edge_assistant.text.tokenizer import Tokenizer

ReplyPart = Literal["text", "thought", "calls"]


@dataclass(frozen=True, slots=True)
class Marks:
    """The control ids that cut up a reply; None for those that the model does not write."""

    calls: int | None = None
    args: int | None = None
    """What stands between a call's name and its arguments; without it the calls are one JSON list."""
    call_id: int | None = None
    think: int | None = None
    end_think: int | None = None


class ReplySplitter:
    """Says which part of a reply each id belongs to, one id at a time."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._part: ReplyPart = "text"

    def push(self, token_id: int) -> ReplyPart:
        """Return the part of the next id; marks belong to the part that they open or close."""
        if self._part == "thought" and token_id == self._marks.end_think:
            self._part = "text"
            return "thought"
        if self._part == "text" and token_id == self._marks.think:
            self._part = "thought"
        elif self._part == "text" and token_id == self._marks.calls:
            self._part = "calls"
        return self._part


def read_reply(tokenizer: Tokenizer, marks: Marks, ids: Iterable[int], *, cut_off: bool) -> Assistant:
    """Return the text and the calls of a reply; `cut_off` says that it was not the model who ended it.

    A call's id is dropped, for ids are given by the runtime. ToolCallError, with the text as it came, where the calls
    cannot be read, and where some may be missing: calls of v11 and v13 do not say how many they are.
    """
    splitter = ReplySplitter(marks)
    parts = [(splitter.push(token_id), token_id) for token_id in ids]
    text = tokenizer.decode(token_id for part, token_id in parts if part == "text")
    called = [token_id for part, token_id in parts if part == "calls"]
    if not called:
        return Assistant(text)
    if marks.args is None:
        return Assistant(text, parse_calls(tokenizer.decode(called)))
    if cut_off:
        raise ToolCallError(tokenizer.spell(called), "more calls may have followed")
    return Assistant(text, _marked_calls(tokenizer, marks, called))


def parse_calls(text: str) -> tuple[ToolCall, ...]:
    """Return the calls of a JSON list of objects with a `name` and `arguments`; ToolCallError says what is wrong."""
    calls = _strict_json(text, text)
    if not isinstance(calls, list) or not calls:
        raise ToolCallError(text, "it is not a list of calls")
    return tuple(_listed_call(call, text) for call in calls)


def _listed_call(call: object, written: str) -> ToolCall:
    if not isinstance(call, dict) or not {"name", "arguments"} <= call.keys() <= {"name", "arguments", "id"}:
        raise ToolCallError(written, "a call is an object with a name and arguments")
    return _checked_call(call["name"], call["arguments"], written)


def _marked_calls(tokenizer: Tokenizer, marks: Marks, ids: Sequence[int]) -> tuple[ToolCall, ...]:
    """Return the calls of ids that begin with the mark of a call, as each call does."""
    written = tokenizer.spell(ids)
    _, *calls = _split(ids, lambda token_id: token_id == marks.calls)
    return tuple(_marked_call(tokenizer, marks, call, written) for call in calls)


def _marked_call(tokenizer: Tokenizer, marks: Marks, ids: Sequence[int], written: str) -> ToolCall:
    inner_marks = [token_id for token_id in ids if tokenizer.is_control(token_id)]
    if inner_marks not in ([marks.args], [marks.call_id, marks.args]):
        raise ToolCallError(written, "a call is a name, [ARGS] and arguments")
    name, *_, arguments = _split(ids, tokenizer.is_control)
    return _checked_call(tokenizer.decode(name), _strict_json(tokenizer.decode(arguments), written), written)


def _checked_call(name: object, arguments: object, written: str) -> ToolCall:
    if not isinstance(name, str) or not name:
        raise ToolCallError(written, "a call's name is a text")
    if not isinstance(arguments, dict):
        raise ToolCallError(written, "a call's arguments are an object")
    return ToolCall(name, arguments)


def _strict_json(text: str, written: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # neither infinity nor half a character
    except (ValueError, RecursionError) as error:
        raise ToolCallError(written, f"it is not JSON ({error})") from error
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key stands twice")
    return members


def _split(ids: Iterable[int], at: Callable[[int], bool]) -> list[list[int]]:
    """Return the runs of ids before, between and after those at which to cut, which are left out."""
    runs: list[list[int]] = [[]]
    for token_id in ids:
        if at(token_id):
            runs.append([])
        else:
            runs[-1].append(token_id)
    return runs
