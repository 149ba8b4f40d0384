"""What every message writes it reads; and what is no question is a named error."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_assistant.assistant import Ask
from edge_assistant.errors import (
    ContextOverflowError,
    GrammarError,
    IncompleteAnswerError,
    RequestError,
    ToolCallError,
)
from edge_assistant.home.timers import Timer
from edge_assistant.home.values import one_line
from edge_assistant.mqtt import protocol
from edge_assistant.mqtt.protocol import ErrorAnswer, Meta, TimerEnded, read_ask, write_ask
from edge_assistant.text.response_format import MAX_SCHEMA_BYTES

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LINE = TEXT.map(one_line).filter(bool)
IDS = st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True)
MESSAGES = {
    ErrorAnswer: st.builds(ErrorAnswer, IDS, LINE, TEXT, st.none() | st.floats(0, 60)),
    Meta: st.builds(Meta, LINE, *[st.none() | LINE] * 5, st.lists(LINE, max_size=4).map(tuple)),
    TimerEnded: st.builds(TimerEnded, st.builds(Timer, st.none() | LINE, st.integers(1, 86400))),
}


def test_every_message_class_is_tried():
    classes = {thing for thing in vars(protocol).values() if hasattr(thing, "from_payload")}
    assert classes == set(MESSAGES)


@given(st.one_of(*MESSAGES.values()))
def test_what_a_message_writes_it_reads(message):
    assert type(message).from_payload(message.to_payload()) == message


ASKS = st.builds(
    Ask, TEXT.filter(one_line), st.none() | IDS, st.none() | LINE.filter(lambda s: len(s) <= 64),
    st.none() | st.integers(1, 4096), st.none() | IDS,
    st.none() | st.dictionaries(TEXT, TEXT | st.booleans() | st.lists(TEXT)),
)  # fmt: skip


@given(ASKS)
def test_what_a_question_writes_is_read(ask):
    assert read_ask(write_ask(ask), 1 << 20) == ask


@given(st.binary(max_size=200))
def test_any_bytes_are_a_question_or_a_named_error(payload):
    try:
        code = None if read_ask(payload, 150).text.strip() else "a question without words"
    except RequestError as error:
        code = error.code
    assert code in {None, "too_large", "invalid_utf8", "invalid_json", "invalid_field", "empty"}


@pytest.mark.parametrize(
    ("payload", "ask"),
    [
        (b" is the door locked?\n", Ask("is the door locked?")),
        ("Müsli {x}".encode(), Ask("Müsli {x}")),
        (b'\n {"text": "hi"}', Ask("hi")),
        (b'{"text": "hi", "id": null, "session": "a", "max_tokens": 5}', Ask("hi", None, "a", 5)),
        (b'{"text": "hi", "adapter": "kitchen"}', Ask("hi", adapter="kitchen")),
        (b'["hi"]', Ask('["hi"]')),
    ],
)
def test_questions(payload, ask):
    assert read_ask(payload, 1000) == ask


@pytest.mark.parametrize(
    ("payload", "code", "question_id"),
    [
        (b"x" * 1001, "too_large", None),
        (b"caf\xe9", "invalid_utf8", None),
        (b'{"text": "hi", "id": "7", "session": "\\ud800"}', "invalid_utf8", "7"),
        (b'{"text": "hi"', "invalid_json", None),
        (b"{" * 1000, "invalid_json", None),
        (b'{"a":' * 190 + b"1", "invalid_json", None),
        (b'{"max_tokens": ' + b"9" * 900, "invalid_json", None),
        (b'{"id": "7"}', "invalid_field", "7"),
        (b'{"text": 7, "id": "7"}', "invalid_field", "7"),
        (b'{"text": "hi", "id": 7}', "invalid_field", None),
        (b'{"text": "hi", "id": "a/b"}', "invalid_field", None),
        (b'{"text": "hi", "id": "7", "sesion": "a"}', "invalid_field", "7"),
        (b'{"text": "hi", "max_tokens": true}', "invalid_field", None),
        (b'{"text": "hi", "max_tokens": 0}', "invalid_field", None),
        (b'{"text": "hi", "session": ""}', "invalid_field", None),
        (b'{"text": "hi", "id": "7", "adapter": "/etc/kitchen.npz"}', "invalid_field", "7"),
        (b'{"text": "hi", "id": "7", "adapter": ""}', "invalid_field", "7"),
        (b'{"text": "hi", "id": "7", "adapter": ["kitchen"]}', "invalid_field", "7"),
        (b"", "empty", None),
        (b"\0\x07", "empty", None),
        (b'{"text": " ", "id": "7"}', "empty", "7"),
    ],
)
def test_what_is_no_question_is_named(payload, code, question_id):
    with pytest.raises(RequestError) as caught:
        read_ask(payload, 1000)
    assert (caught.value.code, caught.value.request_id) == (code, question_id)


FORMAT = {"type": "json_schema", "json_schema": {"name": "lamp", "strict": True, "schema": {"type": "boolean"}}}


def test_a_response_format_is_that_of_others():
    payload = json.dumps({"text": "is it on?", "response_format": FORMAT}).encode()
    assert read_ask(payload, 1000) == Ask("is it on?", schema={"type": "boolean"})


@pytest.mark.parametrize(
    "form",
    [
        "json",
        {},
        {"type": "text"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": []},
        {"type": "json_schema", "json_schema": {"type": "boolean"}},
        {"type": "json_schema", "json_schema": {"schema": True}},
        {"type": "json_schema", "json_schema": {"schema": {}, "name": 7}},
        {"type": "json_schema", "json_schema": {"schema": {}, "\ud800": 7}},
        {"type": "json_schema", "json_schema": {"schema": {}}, "schema": {}},
        {"type": "json_schema", "json_schema": {"schema": {"const": "\ud800"}}},
        {"type": "json_schema", "json_schema": {"schema": {"enum": ["x" * MAX_SCHEMA_BYTES]}}},
    ],
)
def test_a_response_format_that_cannot_be_read_is_named(form):
    with pytest.raises(RequestError, match=r"response_format|schema ") as caught:
        read_ask(json.dumps({"text": "hi", "id": "7", "response_format": form}).encode(), 1 << 20)
    assert (caught.value.code, caught.value.request_id) == ("invalid_field", "7")
    str(caught.value).encode()


@given(st.text(max_size=8))
@example("\ud800")
def test_any_message_of_an_error_can_be_sent(message):
    error = ErrorAnswer("7", "model", message)
    assert ErrorAnswer.from_payload(error.to_payload()) == error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GrammarError("json_schema", "nsatisfiable"), "invalid_schema"),
        (GrammarError("lark", "the home's own tools"), "model"),
        (IncompleteAnswerError('{"on', "length", 3), "incomplete"),
        (ContextOverflowError(3, 2, 1), "context_overflow"),
        (ToolCallError("x", "y"), "model"),
    ],
    ids=str,
)
def test_an_error_has_the_code_that_tells_what_to_mend(error, code):
    assert ErrorAnswer.of("7", error).code == code


def test_deep_nesting_is_no_crash():
    with pytest.raises(RequestError, match="nested too deep"):
        read_ask(b'{"text":' + b"[" * 60_000, 1 << 20)


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"light", b"[]", b"{}", b"\xff", b'{"domain": 7}', b'{"domain": "' + b"x" * 200 + b'"}'),
        b'{"domain": "light", "name": "a\\nb"}',
        b'{"domain": "light", "aliases": "x"}',
        b'{"domain": "light", "aliases": [1]}',
    ],
)
def test_a_description_that_cannot_be_read_is_a_value_error(payload):
    with pytest.raises(ValueError, match=r"."):
        Meta.from_payload(payload)


def test_fields_of_others_in_a_description_are_passed_over():
    assert Meta.from_payload(b'{"domain": "light", "icon": "mdi:lamp"}') == Meta("light")
