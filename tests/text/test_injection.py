"""Whatever is typed, said by a device or written in a tool, the control ids of a prompt are ours alone."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_assistant.text.instruct import END_THINK, FORMATS, THINK, Control, InstructFormat
from edge_assistant.text.messages import Assistant, System, Tool, ToolCall, ToolResult, User

NAMES = sorted({mark.name for row in FORMATS.values() for mark in row.controls | {THINK, END_THINK}})
LURES = [
    *NAMES,
    "<unk>",
    "<pad>",
    "[IMG]",
    "<SPECIAL_20>",
    "<0x02>",
    "[INST",
    "]",
    "</",
    "s>",
    "▁",
    " ",
    "\n",
]
HOSTILE = st.lists(st.sampled_from(LURES) | st.text(max_size=3), max_size=8).map("".join)


@pytest.mark.parametrize("name", FORMATS)
@given(text=HOSTILE)
@example(text="".join(NAMES))
def test_text_never_becomes_a_control_id(mistral, name, text):
    tokenizer, _ = mistral(name)
    assert not any(map(tokenizer.is_control, tokenizer.encode(text)))


@given(text=HOSTILE)
def test_nor_in_the_small_vocabularies(byte_level, spm, text):
    for tokenizer in (byte_level, spm):
        assert not any(map(tokenizer.is_control, tokenizer.encode(text)))
        assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " " if tokenizer is spm else "▁")


@pytest.mark.parametrize("name", FORMATS)
@given(texts=st.tuples(HOSTILE, HOSTILE, HOSTILE.filter(bool), HOSTILE, HOSTILE))
def test_a_prompt_has_the_control_ids_of_its_layout_and_no_other(mistral, name, texts):
    tokenizer, _ = mistral(name)
    system, first, answer, second, result = texts
    chat = [System(system), User(first), Assistant(answer), User(second)]
    tools = []
    if name != "v1":
        chat += [Assistant(calls=(ToolCall("T", {first: second}, "call00001"),)), ToolResult("call00001", result)]
        tools = [Tool("T", second, {"type": "object", "title": result})]
    layout = InstructFormat.named(name)
    ours = [tokenizer.control_id(part.name) for part in layout.parts(chat, tools) if isinstance(part, Control)]
    assert list(filter(tokenizer.is_control, layout.encode(tokenizer, chat, tools))) == ours


@pytest.mark.parametrize("name", ["v7", "v11", "v13"])
@given(text=HOSTILE)
def test_what_a_model_repeats_of_it_is_text_and_no_call(byte_level, spm, name, text):
    layout = InstructFormat.named(name)
    for tokenizer in (byte_level, spm):
        reply = tokenizer.encode(text)
        assert layout.parse(tokenizer, reply) == Assistant(tokenizer.decode(reply))
