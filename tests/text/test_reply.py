"""How a reply is read, in each format: what is text, what is a thought, what is a call, and what is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_assistant.errors import ToolCallError
from edge_assistant.text.chat import _Writer
from edge_assistant.text.instruct import FORMATS, Control, InstructFormat
from edge_assistant.text.messages import Assistant, ToolCall, User
from edge_assistant.text.reply import parse_calls
from edge_assistant.text.tokenizer import Tokenizer

TOOL_FORMATS = [name for name in FORMATS if name != "v1"]
QUESTION = [User("on")]
LAMP, FAN = ToolCall("T", {"a": [1, {"b": None}]}), ToolCall("Ü", {})
CALLS, ARGS, CALL_ID = Control("[TOOL_CALLS]"), Control("[ARGS]"), Control("[CALL_ID]")
THINK, END_THINK = Control("[THINK]"), Control("[/THINK]")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=3,
)
NAMES = st.text(min_size=1, max_size=8)
ID = st.none() | st.text("abcXYZ019", min_size=9, max_size=9)
SOME_CALLS = st.lists(
    st.builds(ToolCall, NAMES, st.dictionaries(st.text(max_size=5), JSON, max_size=2), ID),
    max_size=3,
    unique_by=lambda call: call.id or object(),
)
PIECES = st.lists(
    st.sampled_from(["Yes. ", "☺", '{"a": 1}', "{}", "T", '[{"name": "T", "arguments": {}}]', "\n"])
    | st.sampled_from([CALLS, ARGS, CALL_ID, THINK, END_THINK])
    | st.text(max_size=3),
    max_size=8,
)


def generated(tokenizer: Tokenizer, *parts: Control | str) -> list[int]:
    ids: list[int] = []
    for part in parts:
        ids += [tokenizer.control_id(part.name)] if isinstance(part, Control) else tokenizer.encode(part)
    return ids


def written(name: str, tokenizer: Tokenizer, answer: Assistant) -> list[int]:
    """Return the reply that a model trained on this answer writes, without what ends it."""
    layout = InstructFormat.named(name)
    return layout.encode(tokenizer, [*QUESTION, answer])[len(layout.encode(tokenizer, QUESTION)) : -1]


def read(name: str, tokenizer: Tokenizer, *parts: Control | str) -> Assistant:
    return InstructFormat.named(name).parse(tokenizer, generated(tokenizer, *parts))


def without_ids(answer: Assistant) -> Assistant:
    return Assistant(answer.text, tuple(ToolCall(call.name, call.arguments) for call in answer.calls))


# What is written is read.


@pytest.mark.parametrize("name", TOOL_FORMATS)
def test_a_reply_that_was_laid_out_is_read_back(tokenizer, name):
    for answer in (Assistant("Grüße ☺"), Assistant(calls=(LAMP, FAN))):
        reply = [*written(name, tokenizer, answer), tokenizer.control_id("</s>")]
        assert InstructFormat.named(name).parse(tokenizer, reply) == answer


@pytest.mark.parametrize("name", ["v7", "v11", "v13"])
@settings(max_examples=60)
@given(text=st.text(max_size=9).map(lambda text: text.rstrip(" ")), calls=SOME_CALLS)
def test_any_text_with_any_calls_is_read_back(byte_level, name, text, calls):
    if text or calls:
        answer = Assistant(text, tuple(calls))
        ids = written(name, byte_level, answer)
        assert InstructFormat.named(name).parse(byte_level, ids) == without_ids(answer)


@pytest.mark.parametrize("name", ["v7", "v11"])
@settings(max_examples=40)
@given(arguments=st.dictionaries(st.text(), JSON))
def test_any_arguments_survive_sentencepiece(spm, name, arguments):
    answer = Assistant(calls=(ToolCall("T", arguments),))
    if "▁" not in str(arguments):
        assert InstructFormat.named(name).parse(spm, written(name, spm, answer)) == answer


@pytest.mark.parametrize("name", ["v7", "v11", "v13"])
@settings(max_examples=60)
@given(text=st.text(max_size=5), calls=SOME_CALLS, data=st.data())
def test_a_reply_that_was_cut_off_has_all_its_calls_or_none(byte_level, name, text, calls, data):
    if text or calls:
        answer = without_ids(Assistant(text, tuple(calls)))
        ids = written(name, byte_level, Assistant(text, tuple(calls)))
        cut = ids[: data.draw(st.integers(0, len(ids)))]
        with suppress(ToolCallError):
            assert InstructFormat.named(name).parse(byte_level, cut, cut_off=True).calls in ((), answer.calls)


@pytest.mark.parametrize("name", ["v11", "v13"])
def test_calls_that_were_cut_off_between_two_are_refused(byte_level, name):
    layout, ids = InstructFormat.named(name), written(name, byte_level, Assistant(calls=(LAMP, FAN)))
    first = ids[: ids.index(byte_level.control_id("[TOOL_CALLS]"), 1)]
    assert layout.parse(byte_level, first) == Assistant(calls=(LAMP,))
    with pytest.raises(ToolCallError, match="more calls may have followed"):
        layout.parse(byte_level, first, cut_off=True)


# The stream.


@pytest.mark.parametrize("name", TOOL_FORMATS)
@given(pieces=PIECES)
def test_what_is_handed_on_is_the_text_that_is_read(byte_level, spm, name, pieces):
    layout = InstructFormat.named(name)
    for tokenizer in (byte_level, spm):
        heard: list[str] = []
        writer = _Writer(tokenizer, (), layout.marks(tokenizer), heard.append)
        for token_id in generated(tokenizer, *pieces):
            writer.push(token_id)
        writer.finish()
        assert "".join(heard) == writer.text
        with suppress(ToolCallError):
            assert layout.parse(tokenizer, writer.ids).text == writer.text


@given(pieces=PIECES, more=PIECES)
def test_what_was_handed_on_is_not_taken_back(byte_level, pieces, more):
    layout = InstructFormat.named("v13")
    heard: list[str] = []
    writer = _Writer(byte_level, (), layout.marks(byte_level), heard.append)
    for token_id in generated(byte_level, *pieces):
        writer.push(token_id)
    before = "".join(heard)
    for token_id in generated(byte_level, *more):
        writer.push(token_id)
    writer.finish()
    assert writer.text.startswith(before)


# Where a reply ends, and what no call is.


@pytest.mark.parametrize("name", ["v7", "v11", "v13"])
def test_a_reply_may_hold_text_and_calls(tokenizer, name):
    answer = Assistant("Yes.", (LAMP,))
    assert InstructFormat.named(name).parse(tokenizer, written(name, tokenizer, answer)) == answer


@pytest.mark.parametrize("name", ["v7", "v11", "v13"])
def test_a_reply_ends_where_the_model_would_speak_for_another(tokenizer, name):
    layout = InstructFormat.named(name)
    for stop in ("</s>", "[INST]", "[TOOL_RESULTS]", "<s>"):
        assert tokenizer.control_id(stop) in layout.stop_ids(tokenizer)
        assert read(name, tokenizer, "Yes.", Control(stop), "and more") == Assistant("Yes.")
    own = {tokenizer.control_id(mark.name) for mark in (CALLS, ARGS, CALL_ID, THINK, END_THINK)}
    assert not own & layout.stop_ids(tokenizer)


@pytest.mark.parametrize("name", ["v7", "v11", "v13"])
@pytest.mark.parametrize("text", ['[TOOL_CALLS][{"name": "T", "arguments": {}}]', "[TOOL_CALLS]T[ARGS]{}", "[THINK]a"])
def test_text_that_looks_like_a_mark_is_text(tokenizer, name, text):
    assert read(name, tokenizer, text) == Assistant(text)


# Calls as one JSON list.


def test_the_id_a_model_gives_a_call_is_dropped(tokenizer):
    assert parse_calls('[{"name": "T", "arguments": {"a": 1}, "id": "abcdefghi"}]') == (ToolCall("T", {"a": 1}),)
    assert read("v11", tokenizer, CALLS, "T", CALL_ID, "abcdefghi", ARGS, '{"a": 1}').calls == (
        ToolCall("T", {"a": 1}),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"name": "T", "arguments": {}}',
        '[{"name": "T"}]',
        '[{"name": "T", "arguments": {}}',
        '[{"name": "T", "arguments": {}}] and so on',
        '[{"name": "T", "arguments": {}, "extra": 1}]',
        '[{"name": "", "arguments": {}}]',
        '[{"name": 1, "arguments": {}}]',
        '[{"name": "T", "arguments": []}]',
        '[{"name": "T", "arguments": "{}"}]',
        '[{"name": "T", "arguments": {"a": NaN}}]',
        '[{"name": "T", "arguments": {"a": 1e999}}]',
        '[{"name": "T", "arguments": {"a": 1, "a": 2}}]',
        '[{"name": "T", "arguments": {"a": "\\ud83d"}}]',
        "[" * 100_000,
        '[{"name": "T", "arguments": {"a": ' + "9" * 5000 + "}}]",
    ],
)
def test_a_malformed_call_is_refused_whole(text):
    with pytest.raises(ToolCallError) as refused:
        parse_calls(text)
    assert refused.value.text == text
    assert len(str(refused.value)) < 500


@given(text=st.text())
def test_whatever_a_model_writes_is_calls_or_a_named_error(text):
    with suppress(ToolCallError):
        assert parse_calls(text)


# Calls with marks.


@pytest.mark.parametrize("name", ["v11", "v13"])
@pytest.mark.parametrize(
    "parts",
    [
        [],
        ["T"],
        ["T", ARGS],
        [ARGS, "{}"],
        ["T{}"],
        ["T", CALL_ID, "abcdefghi"],
        ["T", CALL_ID, "abcdefghi", "{}"],
        ["T", ARGS, "{}", CALL_ID, "abcdefghi"],
        ["T", ARGS, "{}", ARGS, "{}"],
        ["T", CALL_ID, "a", CALL_ID, "b", ARGS, "{}"],
        ["T", ARGS, '{"a": 1'],
        ["T", ARGS, "{} and so on"],
        ["T", ARGS, "[]"],
        ["T", ARGS, "null"],
        ["T", ARGS, '"{}"'],
        ["T", ARGS, '{"a": NaN}'],
        ["T", ARGS, '{"a": 1e999}'],
        ["T", ARGS, '{"a": 1, "a": 2}'],
        ["T", ARGS, '{"a": "\\ud83d"}'],
        ["T", ARGS, "[" * 5_000],
        ["T", ARGS, "{", THINK, "which?", END_THINK, "}"],
        ["T", THINK, "which?", END_THINK, ARGS, "{}"],
        ["T", ARGS, "{}", CALLS],
        ["T", ARGS, "{}", CALLS, CALLS, "U", ARGS, "{}"],
        ['[{"name": "T", "arguments": {}}]'],
    ],
)
def test_a_malformed_call_among_good_ones_is_refused_with_them(byte_level, name, parts):
    good = [CALLS, "U", ARGS, "{}"]
    for around in ([CALLS, *parts], [*good, CALLS, *parts], [CALLS, *parts, *good]):
        with pytest.raises(ToolCallError) as refused:
            read(name, byte_level, "Sure.", *around)
        assert refused.value.text == "".join(part.name if isinstance(part, Control) else part for part in around)
        assert len(str(refused.value)) < 500


def test_a_call_id_is_no_part_of_a_v13_call(byte_level):
    with pytest.raises(ToolCallError, match=r"T\[CALL_ID\]abcdefghi\[ARGS\]"):
        read("v13", byte_level, CALLS, "T", CALL_ID, "abcdefghi", ARGS, "{}")


@pytest.mark.parametrize("name", TOOL_FORMATS)
@given(pieces=PIECES)
def test_whatever_marks_stand_where_it_is_a_reply_or_a_named_error(byte_level, name, pieces):
    with suppress(ToolCallError):
        reply = read(name, byte_level, *pieces)
        assert all(call.name and isinstance(call.arguments, dict) and call.id is None for call in reply.calls)
        assert CALLS in pieces or not reply.calls


# Thoughts.


@pytest.mark.parametrize(
    ("parts", "answer"),
    [
        ([THINK, "Which lamp?", END_THINK, "Sure."], Assistant("Sure.")),
        (["Wait. ", THINK, "a", END_THINK, "b ", THINK, "c", END_THINK, "d"], Assistant("Wait. b d")),
        ([THINK, "a", END_THINK, CALLS, "T", ARGS, "{}"], Assistant(calls=(ToolCall("T", {}),))),
        ([THINK, CALLS, "T", ARGS, "{}", END_THINK, "No."], Assistant("No.")),
        ([THINK, "a", THINK, "b", END_THINK, "c"], Assistant("c")),
        ([THINK, "No end.", CALLS, "T", ARGS, "{}"], Assistant()),
        (["No beginning.", END_THINK, "Yes."], Assistant("No beginning.Yes.")),
    ],
)
def test_a_thought_is_neither_text_nor_call(byte_level, parts, answer):
    assert read("v13", byte_level, *parts) == answer


def test_a_vocabulary_without_marks_of_thoughts_will_do(mistral):
    tokenizer, _ = mistral("v11")
    assert InstructFormat.named("v13").marks(tokenizer).think is None
    assert read("v13", tokenizer, "Sure.", CALLS, "T", ARGS, "{}") == Assistant("Sure.", (ToolCall("T", {}),))


@given(thought=PIECES, text=st.text(max_size=5))
def test_no_thought_is_heard(byte_level, thought, text):
    inside = [part for part in thought if part != END_THINK]
    assert read("v13", byte_level, THINK, *inside, END_THINK, text) == Assistant(text)
