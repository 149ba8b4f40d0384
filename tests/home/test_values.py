"""Payloads become values that can stand in a prompt."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.home.kinds import KINDS, kind_of
from edge_assistant.home.registry import Device, as_words, describe
from edge_assistant.home.resolve import resolve
from edge_assistant.home.values import MAX_TEXT, canonical_state, one_line, read_value, same


@given(st.text())
def test_no_text_can_look_like_another_device(text):
    """Whatever a device reports, the prompt keeps one line for it."""
    value = read_value(text)
    device = Device("hall", "lamp", "light", properties={"state": value})
    assert describe([device]).count("\n") == 1
    assert len(as_words(value)) <= MAX_TEXT


@given(st.text())
def test_one_line_changes_nothing_the_second_time(text):
    assert one_line(one_line(text)) == one_line(text)


@given(st.one_of(st.booleans(), st.integers(-(10**15), 10**15), st.floats(-1e6, 1e6).map(lambda x: round(x, 4) + 0.0)))
def test_what_is_written_is_read(value):
    assert as_words(read_value(as_words(value))) == as_words(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        (" 21.5\n", 21.5),
        ("-4", -4),
        ("40", 40),
        ("True", True),
        ("1e999", "1e999"),
        ("9" * 4000, "9" * MAX_TEXT),
        ("a\x00b\tc", "a b c"),
        ("", ""),
    ],
)
def test_payloads(text, value):
    assert read_value(text) == value


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.states], ids=lambda kind: kind.word)
def test_a_kind_keeps_its_own_states_in_any_case(kind):
    assert [canonical_state(kind, state.upper()) for state in kind.states] == list(kind.states)


@pytest.mark.parametrize(
    ("names", "reported", "state"),
    [
        (("binary_sensor", "window"), "ON", "open"),
        (("binary_sensor", "window"), False, "closed"),
        (("binary_sensor", "moisture"), "on", "wet"),
        (("light", None), True, "on"),
        (("person", None), "not_home", "away"),
        (("cover", "blind"), "opening", "opening"),
        (("sensor", "temperature"), 21.5, 21.5),
        (("sensor", "temperature"), float("nan"), "nan"),
    ],
)
def test_home_assistants_words_become_the_kinds(names, reported, state):
    assert canonical_state(kind_of(*names), reported) == state


@pytest.mark.parametrize("spelling", ["Living_Room", "living  room", "the living room", "LIVING ROOM"])
def test_spellings_that_are_the_same(spelling):
    assert same(spelling) == "living room"


@given(st.text())
def test_letters_with_marks_are_the_same_however_they_are_written(text):
    written = {same(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")}
    assert written == {same(text)}


@pytest.mark.parametrize(("listed", "said"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_lamp_with_an_umlaut_is_found(listed, said):
    lamp = Device("Küche", unicodedata.normalize(listed, "Küchenlampe"), "light")
    assert resolve([lamp], {"name": unicodedata.normalize(said, "küchenlampe")}) == [lamp]
