"""What a reply with tools may be, as a grammar: text, thoughts, and calls of the tools there are, by their schemas.

It lets through what `reply.py` reads, and no call of another tool or with other arguments. For two tools T and U in a
format whose calls are one JSON list (up to v7), and in one that marks each call (v11):

    text? ( [TOOL_CALLS] [{"name": "T", "arguments": {..}} or {"name": "U", "arguments": {..}}, more of them] )?
    text? ( [TOOL_CALLS] (T [ARGS] {..} or U [ARGS] {..}) )*
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edge_assistant.engine.grammar import JSON_OPTIONS, Constraint
from edge_assistant.text.messages import Tool
from edge_assistant.text.reply import Marks

_TEXT = "TEXT: /(?s:.+)/"


def reply_grammar(tools: Sequence[Tool], marks: Marks, *, text_with_calls: bool, leading_space: bool) -> Constraint:
    """Return the constraint to replies that call these tools only.

    With `leading_space` text may start with one behind each control token, as SentencePiece writes it.
    """
    gap = "/ ?/ " if leading_space else ""
    calls = _listed_calls(tools, marks, gap) if marks.args is None else _marked_calls(tools, marks, gap)
    both = "TEXT? calls?" if text_with_calls else "TEXT? | calls"
    thought = "" if marks.think is None else f"(<[{marks.think}]> TEXT? <[{marks.end_think}]>)? "
    return Constraint.lark("\n".join([f"start: {thought}({both})", *calls, _TEXT]))


def _listed_calls(tools: Sequence[Tool], marks: Marks, gap: str) -> list[str]:
    each = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": dict(tool.parameters), "id": {"type": "string"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    schema = {"type": "array", "items": {"anyOf": each}, "minItems": 1}
    return [f"calls: <[{marks.calls}]> {gap}list", f"list: {_json(schema)}"]


def _marked_calls(tools: Sequence[Tool], marks: Marks, gap: str) -> list[str]:
    call_id = "" if marks.call_id is None else f"(<[{marks.call_id}]> {gap}/[a-zA-Z0-9]{{9}}/)? "
    rules = ["calls: call+"]
    for number, tool in enumerate(tools):
        rules.append(f"call_{number}: {gap}{json.dumps(tool.name)} {call_id}<[{marks.args}]> {gap}arguments_{number}")
        rules.append(f"arguments_{number}: {_json(dict(tool.parameters))}")
    either = " | ".join(f"call_{number}" for number in range(len(tools)))
    return [*rules, f"call: <[{marks.calls}]> ({either})"]


def _json(schema: dict[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': JSON_OPTIONS})}"
