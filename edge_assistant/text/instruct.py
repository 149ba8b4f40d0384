r"""Mistral's instruct formats: a conversation as token ids, and a generated reply as a message.

A prompt is a list of parts: a control token, which becomes one id, or text, which never becomes a control id.
What differs between the versions is a row of `FORMATS`; `[INST]` and its like are numbered differently in every
vocabulary and so are looked up by name. The `-tekken` names have the same layout as their spm twins (the space that
spm models see after a control token comes from their tokenizer, not from the format).

    v1  <s>"[INST] SYS\n\nHi [/INST]" "B"</s>"[INST] ... [/INST]"
    v2  <s>[INST]"Hi"[/INST]"B"</s>[AVAILABLE_TOOLS]"[...]"[/AVAILABLE_TOOLS][INST]"SYS\n\nAnd?"[/INST]
        [TOOL_CALLS]"[{name, arguments}]"</s>[TOOL_RESULTS]"[{name, content}]"[/TOOL_RESULTS]"Done"</s>
    v3  as v2, but calls carry their id, results are "{content, call_id}", and earlier tool rounds are kept
    v7  <s>[SYSTEM_PROMPT]"SYS"[/SYSTEM_PROMPT][INST]"Hi"[/INST] and [TOOL_RESULTS]"id"[TOOL_CONTENT]"ok"[/TOOL_RESULTS]

The ids equal those of mistral-common 1.13 (`mistral_common/tokens/tokenizers/instruct.py`), which is the source.
It accepts more than we do: here a system text comes first or not at all, a user speaks before the assistant does,
and each result answers a call of the turn before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from edge_assistant.errors import ConversationError, InstructFormatError, ToolCallError
from edge_assistant.text.conversation import checked, role_of
from edge_assistant.text.messages import Assistant, Message, System, Tool, ToolCall, ToolResult, User
from edge_assistant.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Control:
    """A control token of a prompt, by name."""

    name: str


Part = Control | str

BOS, EOS = Control("<s>"), Control("</s>")
INST, END_INST = Control("[INST]"), Control("[/INST]")
SYSTEM, END_SYSTEM = Control("[SYSTEM_PROMPT]"), Control("[/SYSTEM_PROMPT]")
TOOLS, END_TOOLS = Control("[AVAILABLE_TOOLS]"), Control("[/AVAILABLE_TOOLS]")
CALLS = Control("[TOOL_CALLS]")
RESULTS, RESULT_CONTENT, END_RESULTS = Control("[TOOL_RESULTS]"), Control("[TOOL_CONTENT]"), Control("[/TOOL_RESULTS]")


@dataclass(frozen=True, slots=True)
class InstructFormat:
    """One version's layout."""

    name: str
    system: Literal["first user", "last user", "block"]
    """Where the system text stands: before the first or last user text, or in a block of its own."""
    results: Literal["none", "named", "identified", "block"]
    """How a tool's result is written; `none` where the format knows no tools."""
    controls: frozenset[Control]
    """What marks the turns; without `[INST]` among them it is plain text."""

    @staticmethod
    def named(name: str) -> InstructFormat:
        """Return the format of that name; InstructFormatError lists those there are."""
        try:
            return FORMATS[name]
        except KeyError:
            raise InstructFormatError(name, tuple(FORMATS)) from None

    @property
    def plain(self) -> bool:
        """Whether turns are marked by plain text, not by control ids."""
        return INST not in self.controls

    @property
    def keeps_tool_rounds(self) -> bool:
        """Whether calls and results before the last user turn are still in the prompt."""
        return self.results != "named"

    @property
    def text_with_calls(self) -> bool:
        """Whether one assistant turn may hold both text and calls."""
        return self.results == "block"

    def encode(self, tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        """Return the ids of a conversation; one that ends with the assistant is closed by `</s>`.

        Raises ConversationError for one that this format cannot hold, ControlTokenError where the vocabulary
        lacks a control token that it needs.
        """
        ids: list[int] = []
        for part in self.parts(messages, tools):
            if isinstance(part, Control):
                ids.append(tokenizer.control_id(part.name))
            else:
                ids.extend(tokenizer.encode(part))
        return ids

    def parts(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Iterator[Part]:
        """Yield the conversation as control tokens and text."""
        turns = checked(messages)
        users = [index for index, turn in enumerate(turns) if isinstance(turn, User)]
        self._refuse_unknown(turns, tools, last_user=users[-1])
        bearer = users[0] if self.system == "first user" else users[-1]
        system = ""
        yield BOS
        for index, turn in enumerate(turns):
            match turn:
                case System(text) if self.system == "block":
                    yield from (SYSTEM, text, END_SYSTEM)
                case System(text):
                    system = text
                case User(text):
                    if tools and index == users[-1]:
                        yield from (TOOLS, _json([_listed(tool) for tool in tools]), END_TOOLS)
                    yield from self._user(f"{system}\n\n{text}" if system and index == bearer else text)
                case Assistant():
                    yield from self._assistant(turn, in_history=index < users[-1])
                case ToolResult():
                    yield from self._result(turn, _tool_name(turn, turns[:index]), in_history=index < users[-1])

    def _refuse_unknown(self, turns: Sequence[Message], tools: Sequence[Tool], *, last_user: int) -> None:
        if tools and self.results == "none":
            raise ConversationError(last_user + 1, "user", f"the format {self.name} knows no tools")
        for index, turn in enumerate(turns):
            if isinstance(turn, Assistant) and turn.calls:
                problem = self._unknown(turn, answered=last_user < index < len(turns) - 1)
                if problem is not None:
                    raise ConversationError(index + 1, role_of(turn), f"the format {self.name} {problem}")

    def _unknown(self, turn: Assistant, *, answered: bool) -> str | None:
        """Return what this format cannot do that the calls of the turn would need, None where there is nothing."""
        if self.results == "none":
            return "knows no tools"
        if turn.text and not self.text_with_calls:
            return "holds text or calls in one turn, not both"
        if len(turn.calls) > 1 and answered and self.results == "named":
            return "holds the result of one call a turn"
        return None

    def _user(self, text: str) -> Iterator[Part]:
        if self.plain:
            yield f"[INST] {text} [/INST]"
        else:
            yield from (INST, text, END_INST)

    def _assistant(self, turn: Assistant, *, in_history: bool) -> Iterator[Part]:
        if turn.calls and in_history and not self.keeps_tool_rounds:
            return
        if turn.text:
            yield turn.text if self.plain else turn.text.rstrip(" ")
        if turn.calls:
            yield from (CALLS, _json([self._call(call) for call in turn.calls]))
        yield EOS

    def _call(self, call: ToolCall) -> dict[str, Any]:
        written: dict[str, Any] = {"name": call.name, "arguments": dict(call.arguments)}
        if call.id is not None and self.results != "named":
            written["id"] = call.id
        return written

    def _result(self, turn: ToolResult, name: str, *, in_history: bool) -> Iterator[Part]:
        if self.results == "block":
            yield from (RESULTS, turn.call_id, RESULT_CONTENT, turn.text, END_RESULTS)
        elif self.results == "identified":
            yield from (RESULTS, _json({"content": _value(turn.text), "call_id": turn.call_id}), END_RESULTS)
        elif not in_history:
            yield from (RESULTS, _json([{"name": name, "content": _value(turn.text)}]), END_RESULTS)

    def stop_ids(self, tokenizer: Tokenizer) -> frozenset[int]:
        """Return the ids that end a reply: `</s>`, and every control token that is not the assistant's to say."""
        return frozenset(tokenizer.control_id(control.name) for control in self.controls - {CALLS})

    def call_id(self, tokenizer: Tokenizer) -> int | None:
        """Return the id after which a reply goes on with calls, None where the format knows no tools."""
        return tokenizer.control_id(CALLS.name) if CALLS in self.controls else None

    def parse(self, tokenizer: Tokenizer, ids: Iterable[int]) -> Assistant:
        """Return what the model said, up to the first stop id.

        Calls must be a JSON list of objects with a `name` and `arguments` (and an `id`, which is dropped: ids are
        given by the runtime). Anything else raises ToolCallError with the text as it came; nothing is mended, for
        a call that was guessed could open the wrong door.
        """
        stop_ids, call_id = self.stop_ids(tokenizer), self.call_id(tokenizer)
        reply = list(takewhile(lambda token_id: token_id not in stop_ids, ids))
        if call_id not in reply:
            return Assistant(tokenizer.decode(reply))
        split = reply.index(call_id)
        return Assistant(tokenizer.decode(reply[:split]), parse_calls(tokenizer.decode(reply[split + 1 :])))


_V1 = frozenset({BOS, EOS})
_V2 = _V1 | {INST, END_INST, TOOLS, END_TOOLS, CALLS, RESULTS, END_RESULTS}
_V7 = _V2 | {SYSTEM, END_SYSTEM, RESULT_CONTENT}

FORMATS: Mapping[str, InstructFormat] = {
    row.name: row
    for row in (
        InstructFormat("v1", system="first user", results="none", controls=_V1),
        InstructFormat("v2", system="last user", results="named", controls=_V2),
        InstructFormat("v3", system="last user", results="identified", controls=_V2),
        InstructFormat("v3-tekken", system="last user", results="identified", controls=_V2),
        InstructFormat("v7", system="block", results="block", controls=_V7),
        InstructFormat("v7-tekken", system="block", results="block", controls=_V7),
    )
}


def parse_calls(text: str) -> tuple[ToolCall, ...]:
    """Return the calls that a model wrote as JSON; ToolCallError says what is wrong with them."""
    try:
        calls = json.loads(text, object_pairs_hook=_unique_keys)
        json.dumps(calls, ensure_ascii=False, allow_nan=False).encode()  # neither infinity nor half a character
    except (ValueError, RecursionError) as error:
        raise ToolCallError(text, f"it is not JSON ({error})") from error
    if not isinstance(calls, list) or not calls:
        raise ToolCallError(text, "it is not a list of calls")
    return tuple(_read_call(call, text) for call in calls)


def _read_call(call: object, text: str) -> ToolCall:
    if not isinstance(call, dict) or not {"name", "arguments"} <= call.keys() <= {"name", "arguments", "id"}:
        raise ToolCallError(text, "a call is an object with a name and arguments")
    name, arguments = call["name"], call["arguments"]
    if not isinstance(name, str) or not name:
        raise ToolCallError(text, "a call's name is a text")
    if not isinstance(arguments, dict):
        raise ToolCallError(text, "a call's arguments are an object")
    return ToolCall(name, arguments)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key stands twice")
    return members


def _listed(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _tool_name(result: ToolResult, before: Sequence[Message]) -> str:
    calls = (call for turn in reversed(before) if isinstance(turn, Assistant) for call in turn.calls)
    return next(call.name for call in calls if call.id == result.call_id)


def _value(text: str) -> Any:
    """Return a result's text as JSON where it is JSON, as the text itself where it is not; nothing is `{}`."""
    try:
        return json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return text


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
