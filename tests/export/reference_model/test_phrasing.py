"""Patterns: what a line stands for, what is held out, and that held-out patterns are made of known words."""

from __future__ import annotations

import re
from random import Random

import pytest

from edge_assistant_export.reference_model.lexicon import LEXICON
from edge_assistant_export.reference_model.phrasing import draw, expand, fill, in_words, is_held_out, lines, worn


def test_a_line_stands_for_every_choice() -> None:
    assert expand("(turn|switch) [on]") == ["turn [on]", "switch [on]"]
    assert sorted(set(expand("a (b|c (d|e)|) f"))) == ["a b f", "a c d f", "a c e f", "a f"]


def test_there_are_thousands_of_patterns() -> None:
    assert sum(len(line.known) for intent in LEXICON for line in lines(intent)) > 15_000


def test_no_pattern_is_both_known_and_held_out() -> None:
    known = {(intent, one) for intent in LEXICON for line in lines(intent) for one in line.known}
    held_out = {(intent, one) for intent in LEXICON for line in lines(intent) for one in line.held_out}
    assert 500 < len(held_out) < 0.1 * len(known)
    assert not known & held_out
    assert all(is_held_out(*pattern) for pattern in held_out)


def test_held_out_patterns_are_made_of_words_that_training_knows() -> None:
    known = {word for intent in LEXICON for line in lines(intent) for one in line.known for word in one.split()}
    held_out = {word for intent in LEXICON for line in lines(intent) for one in line.held_out for word in one.split()}
    assert held_out <= known


@pytest.mark.parametrize("intent", sorted(LEXICON))
def test_lines_are_well_formed(intent: str) -> None:
    for line in LEXICON[intent]:
        assert line.count("(") == line.count(")")
        for skeleton in expand(line):
            assert skeleton
            assert not re.search(r"[()|]|\{\w\w\w\w+\}", skeleton.replace("{for}", ""))


@pytest.mark.parametrize("intent", ["on", "is_state", "brightness.free"])
def test_draws_keep_to_their_side(intent: str) -> None:
    rng = Random(1)
    for held_out in (False, True):
        drawn = {draw(rng, intent, held_out=held_out) for _ in range(200)}
        assert {is_held_out(intent, str(one)) for one in drawn} == {held_out}


def test_an_intent_without_lines_draws_nothing() -> None:
    assert draw(Random(1), "no such intent") is None


def test_slots_are_filled_and_spaces_tidied() -> None:
    assert fill("{t} is off , turn {t} on", t="the lamp") == "the lamp is off, turn the lamp on"


@pytest.mark.parametrize(
    ("number", "words"), [(0, "zero"), (13, "thirteen"), (40, "forty"), (57, "fifty seven"), (100, "a hundred")]
)
def test_numbers_in_words(number: int, words: str) -> None:
    assert in_words(number) == words


def test_names_are_never_mistyped() -> None:
    names = frozenset(["a", "zorvik", "kitchen"])
    for seed in range(500):
        text = worn(Random(seed), "turn off a zorvik light in the kitchen", question=False, names=names).lower()
        assert {"a", "zorvik"} <= set(text.split())
        assert "kitchen" in text
