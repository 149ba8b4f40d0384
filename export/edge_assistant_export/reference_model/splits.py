"""The three held-out sets, reported apart and never mixed.

a   fresh homes whose names are all made up, asked by the sentence patterns of training
b   homes as in training, asked by whole sentence patterns that training never saw, of words that it did
c   sentences as a person would say them, written by hand after the lexicon was closed and never used to tune
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import yaml

from edge_assistant.home.snapshot import read_home
from edge_assistant.text.messages import Assistant, System, ToolCall
from edge_assistant_export.reference_model import homes
from edge_assistant_export.reference_model.conversations import SYSTEM, Conversation, conversation, questions
from edge_assistant_export.reference_model.examples.base import Example, Speaker
from edge_assistant_export.reference_model.homes import House
from edge_assistant_export.reference_model.phrasing import is_held_out

if TYPE_CHECKING:
    from collections.abc import Iterator

Split = Literal["a", "b", "c"]
BY_HAND = Path(__file__).with_name("by_hand")
_PER_HOME = 6


@dataclass(frozen=True, slots=True)
class Case:
    """One question of a split, in its conversation."""

    split: Split
    talk: Conversation
    example: Example


def cases(split: Split, count: int = 1200) -> Iterator[Case]:
    """Yield the questions of a split, always the same ones; (c) has as many as were written."""
    if split == "c":
        yield from _by_hand()
        return
    made = 0
    home = 0
    while made < count:
        for case in _of_home(split, home):
            yield case
            made += 1
            if made == count:
                return
        home += 1


def _of_home(split: Split, number: int) -> Iterator[Case]:
    rng = Random(f"split-{split}-{number}")
    house = homes.house(rng, 3, 18, made_up_share=1.0 if split == "a" else None)
    talk = conversation(Speaker(rng), house)
    taken = 0
    for example in questions(Speaker(rng, held_out=split == "b"), talk):
        if split == "b" and not all(_is_held_out(pattern) for pattern in example.patterns):
            continue
        yield Case(split, talk, example)
        taken += 1
        if taken == _PER_HOME:
            return


def _is_held_out(pattern: str) -> bool:
    intent, separator, skeleton = pattern.partition("|")
    return bool(separator) and is_held_out(intent, skeleton)


def _by_hand() -> Iterator[Case]:
    written = yaml.safe_load((BY_HAND / "questions.yaml").read_text(encoding="utf-8"))
    for name, asked in written.items():
        house = House(tuple(read_home(BY_HAND / f"{name}.yaml")), asked["time"])
        talk = Conversation((System(SYSTEM),), house, None)
        for kind, pairs in asked["questions"].items():
            for question, answer in pairs:
                yield Case("c", talk, Example(kind, question, read_answer(answer), ()))


def read_answer(written: str | list[dict[str, dict[str, Any]]]) -> Assistant:
    """Return an answer from its written form: a sentence, or a list of `{tool: slots}`."""
    if isinstance(written, str):
        return Assistant(written)
    return Assistant("", tuple(ToolCall(tool, slots or {}) for call in written for tool, slots in call.items()))


def same(one: Assistant, other: Assistant) -> bool:
    """Return whether two answers are the same: sentences exactly, calls parsed (the order of slots does not count)."""
    return one.text == other.text and _parsed(one) == _parsed(other)


def _parsed(answer: Assistant) -> list[str]:
    return [json.dumps([call.name, dict(call.arguments)], sort_keys=True) for call in answer.calls]
