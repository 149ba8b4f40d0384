"""The committed vocabulary: control tokens where Mistral has them, names that copy token by token."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.text.tokenizer import Tokenizer
from edge_assistant_export.reference_model import tokenizer as recipe

PATH = Path(__file__).parents[3] / "models/home-mini/checkpoint/tokenizer.json"
TOKENIZER = Tokenizer(PATH)


def pieces(text: str) -> list[str]:
    return [TOKENIZER.token_bytes(token_id).decode(errors="replace") for token_id in TOKENIZER.encode(text)]


def test_control_tokens_stand_where_mistral_common_puts_them() -> None:
    tekken = pytest.importorskip("mistral_common.tokens.tokenizers.tekken")
    expected = {token["token_str"]: token["rank"] for token in tekken.Tekkenizer.DEPRECATED_SPECIAL_TOKENS}
    assert {name: TOKENIZER.control_id(name) for name in recipe.CONTROLS} == expected


def test_bytes_follow_the_control_tokens_in_order() -> None:
    first = len(recipe.CONTROLS)
    assert [TOKENIZER.token_bytes(first + byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.from_regex(r"[a-z]{1,12}", fullmatch=True))
def test_a_word_has_the_same_tokens_in_the_home_and_in_a_call(word: str) -> None:
    alone = pieces(word)
    assert pieces(f'{{"name": "{word}"}}')[3 : 3 + len(alone)] == alone
    assert pieces(f"  {word}: light")[1 : 1 + len(alone)] == alone


@given(st.from_regex(r"[a-z]{4,12}", fullmatch=True))
def test_a_word_after_a_space_has_a_space_more_at_most(word: str) -> None:
    spaced = pieces(f"x {word}")[1:]
    assert spaced == [" ", *pieces(word)] or spaced == [" " + pieces(word)[0], *pieces(word)[1:]]


def test_digits_stand_apart() -> None:
    assert pieces("call00012") == ["call", "0", "0", "0", "1", "2"]


def test_what_a_call_is_framed_by_is_few_tokens() -> None:
    assert pieces('[{"name": "HassTurnOn", "arguments": {"name": "')[:5] == [
        '[{"',
        "name",
        '": "',
        "HassTurnOn",
        '", "',
    ]


def test_learning_is_repeatable() -> None:
    small = [recipe.train(seed=2, homes=20, vocabulary=1400).to_str() for _ in range(2)]
    assert small[0] == small[1]
