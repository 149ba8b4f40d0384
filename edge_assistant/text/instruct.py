r"""Mistral's instruct formats: a conversation as token ids, and a generated reply as a message.

A prompt is a list of parts: a control token, which becomes one id, or text, which never becomes a control id.
What differs between the versions is a row of `FORMATS`; `[INST]` and its like are numbered differently in every
vocabulary and so are looked up by name. The `-tekken` names have the same layout as their spm twins (the space that
spm models see after a control token comes from their tokenizer, not from the format); v11 and v13 are tekken alone.

    v1  <s>"[INST] SYS\n\nHi [/INST]" "B"</s>"[INST] ... [/INST]"
    v2  <s>[INST]"Hi"[/INST]"B"</s>[AVAILABLE_TOOLS]"[...]"[/AVAILABLE_TOOLS][INST]"SYS\n\nAnd?"[/INST]
        [TOOL_CALLS]"[{name, arguments}]"</s>[TOOL_RESULTS]"[{name, content}]"[/TOOL_RESULTS]"Done"</s>
    v3  as v2, but calls carry their id, results are "{content, call_id}", and earlier tool rounds are kept
    v7  <s>[SYSTEM_PROMPT]"SYS"[/SYSTEM_PROMPT][INST]"Hi"[/INST] and [TOOL_RESULTS]"id"[TOOL_CONTENT]"ok"[/TOOL_RESULTS]
    v11 as v7, but each call is [TOOL_CALLS]"name"[CALL_ID]"id"[ARGS]"{arguments}", and results stand in their order
    v13 as v11, but without ids: [TOOL_CALLS]"name"[ARGS]"{arguments}" and [TOOL_RESULTS]"ok"[/TOOL_RESULTS]; the tools
        stand before the first [INST], so that a growing conversation keeps its beginning

The ids equal those of mistral-common 1.13 (`mistral_common/tokens/tokenizers/instruct.py`), which is the source.
It accepts more than we do: here a system text comes first or not at all, a user speaks before the assistant does,
and each result answers a call of the turn before it. It writes the thoughts of earlier turns ([THINK], v13) where it
is given them; here a message has none, which leaves a small context to what was said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from edge_assistant.errors import ConversationError, InstructFormatError
from edge_assistant.text.conversation import checked, in_order_of_calls, role_of
from edge_assistant.text.messages import Assistant, Message, System, Tool, ToolCall, ToolResult, User
from edge_assistant.text.reply import Marks, read_reply
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
CALLS, CALL_ID, ARGS = Control("[TOOL_CALLS]"), Control("[CALL_ID]"), Control("[ARGS]")
THINK, END_THINK = Control("[THINK]"), Control("[/THINK]")
RESULTS, RESULT_CONTENT, END_RESULTS = Control("[TOOL_RESULTS]"), Control("[TOOL_CONTENT]"), Control("[/TOOL_RESULTS]")


@dataclass(frozen=True, slots=True)
class InstructFormat:
    """One version's layout."""

    name: str
    system: Literal["first user", "last user", "block"]
    """Where the system text stands: before the first or last user text, or in a block of its own."""
    results: Literal["none", "named", "identified", "block", "bare"]
    """How a tool's result is written; `none` where the format knows no tools."""
    controls: frozenset[Control]
    """What marks turns and calls; without `[INST]` turns are plain text, without `[ARGS]` calls are a JSON list."""
    tools: Literal["first user", "last user"] = "last user"
    """Before which user text the tools are listed."""
    thinks: bool = False
    """Whether a reply may hold thoughts, where the vocabulary has marks for them."""

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
    def knows_tools(self) -> bool:
        """Whether a model can be told of tools and call them."""
        return self.results != "none"

    @property
    def keeps_tool_rounds(self) -> bool:
        """Whether calls and results before the last user turn are still in the prompt."""
        return self.results != "named"

    @property
    def text_with_calls(self) -> bool:
        """Whether one assistant turn may hold both text and calls."""
        return self.results in ("block", "bare")

    @property
    def marks_calls(self) -> bool:
        """Whether each call is set apart by control ids; else all are one JSON list."""
        return ARGS in self.controls

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
        if self.marks_calls:
            turns = in_order_of_calls(turns)
        users = [index for index, turn in enumerate(turns) if isinstance(turn, User)]
        self._refuse_unknown(turns, tools, last_user=users[-1])
        bearer = users[0] if self.system == "first user" else users[-1]
        tools_at = users[0] if self.tools == "first user" else users[-1]
        system = ""
        yield BOS
        for index, turn in enumerate(turns):
            match turn:
                case System(text) if self.system == "block":
                    yield from (SYSTEM, text, END_SYSTEM)
                case System(text):
                    system = text
                case User(text):
                    if tools and index == tools_at:
                        yield from (TOOLS, _json([_listed(tool) for tool in tools]), END_TOOLS)
                    yield from self._user(f"{system}\n\n{text}" if system and index == bearer else text)
                case Assistant():
                    yield from self._assistant(turn, in_history=index < users[-1])
                case ToolResult():
                    yield from self._result(turn, _tool_name(turn, turns[:index]), in_history=index < users[-1])

    def _refuse_unknown(self, turns: Sequence[Message], tools: Sequence[Tool], *, last_user: int) -> None:
        if tools and not self.knows_tools:
            raise ConversationError(last_user + 1, "user", f"the format {self.name} knows no tools")
        for index, turn in enumerate(turns):
            if isinstance(turn, Assistant) and turn.calls:
                problem = self._unknown(turn, answered=last_user < index < len(turns) - 1)
                if problem is not None:
                    raise ConversationError(index + 1, role_of(turn), f"the format {self.name} {problem}")

    def _unknown(self, turn: Assistant, *, answered: bool) -> str | None:
        """Return what this format cannot do that the calls of the turn would need, None where there is nothing."""
        if not self.knows_tools:
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
            yield from self._calls(turn.calls)
        yield EOS

    def _calls(self, calls: Sequence[ToolCall]) -> Iterator[Part]:
        if not self.marks_calls:
            yield from (CALLS, _json([self._listed_call(call) for call in calls]))
            return
        for call in calls:
            yield from (CALLS, call.name)
            if call.id is not None and CALL_ID in self.controls:
                yield from (CALL_ID, call.id)
            yield from (ARGS, _json(dict(call.arguments)))

    def _listed_call(self, call: ToolCall) -> dict[str, Any]:
        written: dict[str, Any] = {"name": call.name, "arguments": dict(call.arguments)}
        if call.id is not None and self.results != "named":
            written["id"] = call.id
        return written

    def _result(self, turn: ToolResult, name: str, *, in_history: bool) -> Iterator[Part]:
        if self.results == "block":
            yield from (RESULTS, turn.call_id, RESULT_CONTENT, turn.text, END_RESULTS)
        elif self.results == "bare":
            yield from (RESULTS, turn.text, END_RESULTS)
        elif self.results == "identified":
            yield from (RESULTS, _json({"content": _value(turn.text), "call_id": turn.call_id}), END_RESULTS)
        elif not in_history:
            yield from (RESULTS, _json([{"name": name, "content": _value(turn.text)}]), END_RESULTS)

    def stop_ids(self, tokenizer: Tokenizer) -> frozenset[int]:
        """Return the ids that end a reply: `</s>`, and every control token that is not the assistant's to say."""
        return frozenset(tokenizer.control_id(control.name) for control in self.controls - {CALLS, CALL_ID, ARGS})

    def marks(self, tokenizer: Tokenizer) -> Marks:
        """Return the ids that cut up a reply; ControlTokenError where the vocabulary lacks one, thoughts apart."""
        calls, args, call_id = (
            tokenizer.control_id(control.name) if control in self.controls else None
            for control in (CALLS, ARGS, CALL_ID)
        )
        think, end_think = (
            tokenizer.find_control(control.name) if self.thinks else None for control in (THINK, END_THINK)
        )
        return Marks(calls, args, call_id, think, end_think)

    def parse(self, tokenizer: Tokenizer, ids: Iterable[int], *, cut_off: bool = False) -> Assistant:
        """Return what the model said, up to the first stop id; see `read_reply`."""
        stop_ids = self.stop_ids(tokenizer)
        reply = takewhile(lambda token_id: token_id not in stop_ids, ids)
        return read_reply(tokenizer, self.marks(tokenizer), reply, cut_off=cut_off)


_V1 = frozenset({BOS, EOS})
_V2 = _V1 | {INST, END_INST, TOOLS, END_TOOLS, CALLS, RESULTS, END_RESULTS}
_V7 = _V2 | {SYSTEM, END_SYSTEM, RESULT_CONTENT}
_V11 = _V7 | {CALL_ID, ARGS}
_V13 = _V11 - {CALL_ID, RESULT_CONTENT}

FORMATS: Mapping[str, InstructFormat] = {
    row.name: row
    for row in (
        InstructFormat("v1", system="first user", results="none", controls=_V1),
        InstructFormat("v2", system="last user", results="named", controls=_V2),
        InstructFormat("v3", system="last user", results="identified", controls=_V2),
        InstructFormat("v3-tekken", system="last user", results="identified", controls=_V2),
        InstructFormat("v7", system="block", results="block", controls=_V7),
        InstructFormat("v7-tekken", system="block", results="block", controls=_V7),
        InstructFormat("v11", system="block", results="block", controls=_V11),
        InstructFormat("v13", system="block", results="bare", controls=_V13, tools="first user", thinks=True),
    )
}


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
