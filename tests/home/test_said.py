"""Texts in capitals become legible, and no other text changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.home.said import legible
from edge_assistant.home.values import same


@given(st.text(st.characters(max_codepoint=0x24F)).map(str.upper))
def test_a_name_is_the_same_name_in_it(name):
    assert same(legible(name)) == same(name)


@given(st.text().filter(lambda text: any(letter.islower() for letter in text)))
def test_a_text_with_small_letters_stays_as_it_is(text):
    assert legible(text) == text


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("TURN THE LAMP ON, 40 %!", "turn the lamp on, 40 %!"),
        ("ÖFFNE DIE TÜR", "öffne die tür"),
        ("Turn the TV off", "Turn the TV off"),
        ("21:40?", "21:40?"),
        ("", ""),
    ],
)
def test_capitals_become_small(said, read):
    assert legible(said) == read
