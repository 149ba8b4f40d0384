"""What the formats lay out, and what they refuse."""

from __future__ import annotations

from itertools import pairwise

import pytest

from edge_assistant.errors import ControlTokenError, ConversationError, InstructFormatError
from edge_assistant.text.instruct import FORMATS, Control, InstructFormat
from edge_assistant.text.messages import Assistant, System, Tool, ToolCall, ToolResult, User

LIGHT = ToolCall("HassTurnOn", {"name": "Küchenlicht"}, "call00001")
FAN = ToolCall("HassTurnOff", {"name": "fan"}, "call00002")
DONE = ToolResult("call00001", "done")
TOOL = Tool("HassTurnOn", "Turn on a device", {"type": "object", "properties": {}})
TOOL_FORMATS = [name for name in FORMATS if name != "v1"]


def laid_out(name, messages, tools=()) -> str:
    """Write the parts of a prompt as one line, text in quotes."""
    parts = InstructFormat.named(name).parts(messages, tools)
    return "".join(part.name if isinstance(part, Control) else f"'{part}'" for part in parts)


def test_where_the_system_text_stands():
    chat = [System("SYS"), User("Hi"), Assistant("B "), User("And?")]
    assert laid_out("v1", chat) == "<s>'[INST] SYS\n\nHi [/INST]''B '</s>'[INST] And? [/INST]'"
    assert laid_out("v3", chat) == "<s>[INST]'Hi'[/INST]'B'</s>[INST]'SYS\n\nAnd?'[/INST]"
    assert laid_out("v7", chat) == "<s>[SYSTEM_PROMPT]'SYS'[/SYSTEM_PROMPT][INST]'Hi'[/INST]'B'</s>[INST]'And?'[/INST]"


def test_how_a_tool_round_is_written():
    chat = [User("on"), Assistant(calls=(LIGHT,)), DONE]
    call = '{"name": "HassTurnOn", "arguments": {"name": "Küchenlicht"}'
    start = "<s>[INST]'on'[/INST][TOOL_CALLS]"
    assert laid_out("v2", chat) == (
        start + f'\'[{call}}}]\'</s>[TOOL_RESULTS]\'[{{"name": "HassTurnOn", "content": "done"}}]\'[/TOOL_RESULTS]'
    )
    with_id = start + f'\'[{call}, "id": "call00001"}}]\'</s>[TOOL_RESULTS]'
    assert laid_out("v3", chat) == (with_id + '\'{"content": "done", "call_id": "call00001"}\'[/TOOL_RESULTS]')
    answer = "'call00001'[TOOL_CONTENT]'done'[/TOOL_RESULTS]"
    assert laid_out("v7", chat) == with_id + answer
    arguments = '[ARGS]\'{"name": "Küchenlicht"}\'</s>[TOOL_RESULTS]'
    assert laid_out("v11", chat) == f"{start}'HassTurnOn'[CALL_ID]'call00001'{arguments}{answer}"
    assert laid_out("v13", chat) == f"{start}'HassTurnOn'{arguments}'done'[/TOOL_RESULTS]"


def test_a_call_without_an_id_is_written_without_one():
    chat = [User("on"), Assistant(calls=(ToolCall("HassTurnOn", {}),))]
    assert laid_out("v7", chat).endswith('[TOOL_CALLS]\'[{"name": "HassTurnOn", "arguments": {}}]\'</s>')
    assert laid_out("v11", chat).endswith("[TOOL_CALLS]'HassTurnOn'[ARGS]'{}'</s>")


@pytest.mark.parametrize("name", TOOL_FORMATS)
def test_tools_stand_before_one_user_turn(name):
    chat = [User("a"), Assistant("b"), User("c"), Assistant(calls=(LIGHT,)), DONE]
    prompt = laid_out(name, chat, [TOOL])
    assert prompt.count("[AVAILABLE_TOOLS]") == 1
    assert ("[/AVAILABLE_TOOLS][INST]'a'" if name == "v13" else "[/AVAILABLE_TOOLS][INST]'c'") in prompt


@pytest.mark.parametrize("name", ["v11", "v13"])
def test_results_stand_in_the_order_of_the_calls_of_their_turn(name):
    fan_done = ToolResult("call00002", "off")
    once = [User("a"), Assistant(calls=(LIGHT, FAN)), DONE, fan_done, Assistant("b"), User("c")]
    again = [Assistant(calls=(FAN, LIGHT)), fan_done, DONE]
    swapped = [*once[:2], fan_done, DONE, *once[4:], again[0], *reversed(again[1:])]
    assert laid_out(name, swapped) == laid_out(name, [*once, *again])


def test_only_v2_forgets_earlier_tool_rounds():
    chat = [User("a"), Assistant(calls=(LIGHT,)), DONE, Assistant("b"), User("c")]
    assert laid_out("v2", chat) == "<s>[INST]'a'[/INST]'b'</s>[INST]'c'[/INST]"
    assert all("[TOOL_CALLS]" in laid_out(name, chat) for name in TOOL_FORMATS if name != "v2")


@pytest.mark.parametrize("name", FORMATS)
def test_without_a_system_text_a_prompt_is_a_prefix_of_the_next(name):
    chat = [User("a"), Assistant("b"), User("c"), Assistant("d"), User("e")]
    assert laid_out(name, chat).startswith(laid_out(name, chat[:4]))
    assert laid_out(name, chat[:4]).startswith(laid_out(name, chat[:3]))


def test_a_v13_prompt_with_system_text_and_tools_is_a_prefix_of_the_next():
    chat = [System("s"), User("a"), Assistant(calls=(LIGHT,)), DONE, Assistant("b"), User("c"), Assistant("d")]
    prompts = [laid_out("v13", chat[:end], [TOOL]) for end in (2, 4, 5, 6, 7)]
    assert all(longer.startswith(shorter) for shorter, longer in pairwise(prompts))


def test_neighbours_of_one_role_are_one_turn():
    assert laid_out("v7", [User("a"), User(""), User("b")]) == "<s>[INST]'a\n\nb'[/INST]"
    assert laid_out("v7", [User("a"), Assistant("b"), Assistant("c", (LIGHT,))]).startswith(
        "<s>[INST]'a'[/INST]'b\n\nc'[TOOL_CALLS]"
    )


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        ([], r"turn 1 .*user.*missing"),
        ([System("s")], r"turn 2 .*user.*missing"),
        ([User("a"), System("s")], r"turn 2 .*system.*first"),
        ([System("s"), System("s"), User("a")], r"turn 2 .*system.*once"),
        ([Assistant("a"), User("b")], r"turn 1 .*assistant.*user speaks first"),
        ([User("a"), Assistant()], r"turn 2 .*neither text nor calls"),
        ([User("a"), DONE], r"turn 2 .*tool result.*no open call call00001"),
        ([User("a"), Assistant(calls=(FAN,)), DONE], r"turn 3 .*no open call call00001"),
        ([User("a"), Assistant(calls=(LIGHT,)), DONE, DONE], r"turn 4 .*no open call"),
        ([User("a"), Assistant(calls=(LIGHT,)), User("b")], r"turn 3 .*user.*call00001 has no result"),
        ([User("a"), Assistant(calls=(LIGHT, FAN)), DONE], r"turn 4 .*call00002 has none"),
        ([User("a"), Assistant(calls=(LIGHT, LIGHT))], r"turn 2 .*same id"),
        ([User("a"), Assistant(calls=(ToolCall("T", {}, "short"),))], r"turn 2 .*nine letters or digits"),
        ([User("a"), Assistant(calls=(ToolCall("T", {}, "nine---id"),))], r"turn 2 .*nine letters or digits"),
    ],
)
@pytest.mark.parametrize("name", ["v3", "v7-tekken"])
def test_a_conversation_out_of_order_is_refused_with_its_turn(name, chat, said):
    with pytest.raises(ConversationError, match=said):
        laid_out(name, chat)


@pytest.mark.parametrize(
    ("name", "chat", "tools", "said"),
    [
        ("v1", [User("a")], [TOOL], "v1 knows no tools"),
        ("v1", [User("a"), Assistant(calls=(LIGHT,)), DONE], [], "v1 knows no tools"),
        ("v2", [User("a"), Assistant("b", (LIGHT,)), DONE], [], "v2 holds text or calls in one turn"),
        ("v3-tekken", [User("a"), Assistant("b", (LIGHT,)), DONE], [], "v3-tekken holds text or calls"),
        (
            "v2",
            [User("a"), Assistant(calls=(LIGHT, FAN)), DONE, ToolResult("call00002", "done")],
            [],
            "v2 holds the result of one call",
        ),
    ],
)
def test_what_a_format_cannot_hold_is_refused(name, chat, tools, said):
    with pytest.raises(ConversationError, match=said):
        laid_out(name, chat, tools)


def test_an_unknown_format_lists_those_there_are():
    with pytest.raises(InstructFormatError, match=r"'v4'.*v1, v2, v3, v3-tekken, v7, v7-tekken, v11, v13"):
        InstructFormat.named("v4")


def test_a_vocabulary_of_another_format_is_named(mistral):
    tokenizer, _ = mistral("v1")
    with pytest.raises(ControlTokenError, match=r"\[INST\]"):
        InstructFormat.named("v3").encode(tokenizer, [User("a")])
