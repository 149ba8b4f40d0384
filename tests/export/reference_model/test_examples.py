"""Questions and their answers: the same from the same seed, true of the home, and calls that the home can carry out."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from edge_assistant.errors import CallError, UnknownDeviceError
from edge_assistant.home.actions import check_arguments, plan
from edge_assistant.home.registry import Home
from edge_assistant.home.resolve import resolve, target_of
from edge_assistant.text.messages import ToolCall
from edge_assistant_export.reference_model import homes
from edge_assistant_export.reference_model.conversations import Conversation, questions, random_conversation
from edge_assistant_export.reference_model.examples import MAKERS
from edge_assistant_export.reference_model.examples.base import Example, NoSuchQuestionError, Speaker
from edge_assistant_export.reference_model.homes import House
from edge_assistant_export.reference_model.phrasing import is_held_out

CONVERSATIONS = 250
QUESTIONS = 8
AS_SAID = {"absent", "ask-back", "ask-back-answer", "follow-up", "partial-name"}
"""Kinds whose names stand in the call as a person said them: the runtime finds what they mean."""


def some(seed: int, count: int = CONVERSATIONS) -> list[tuple[Conversation, Example]]:
    rng = Random(seed)
    found = []
    for _ in range(count):
        speaker, talk = random_conversation(rng, 2, 16)
        found += [(talk, one) for one, _ in zip(questions(speaker, talk), range(QUESTIONS), strict=False)]
    return found


def of_kind(maker: object, house: House, seed: int) -> Example | None:
    try:
        return maker(Speaker(Random(seed)), house)  # type: ignore[operator]
    except NoSuchQuestionError:
        return None


def test_the_same_seed_gives_the_same_questions() -> None:
    assert some(3, 20) == some(3, 20)
    assert some(3, 20) != some(4, 20)


def test_the_runtime_does_with_each_call_what_its_kind_says() -> None:
    came = Counter(
        (example.kind, come_of(example, Home(talk.house.devices), call))
        for talk, example in some(1, 2 * CONVERSATIONS)
        for call in example.answer.calls
        if "Timer" not in call.name
    )
    assert came["ask-back", "asked back"]
    assert came["partial-name", "done"]
    assert came["partial-name", "looked up"]
    open_ended = {"ask-back", "absent", "area-reading", "follow-up", "list", "who"}
    assert {kind for kind, what in came if what not in {"done", "looked up"}} <= open_ended
    assert {what for kind, what in came if kind == "ask-back"} == {"asked back", "looked up"}
    assert came["absent", "unknown"] > 50 * came["absent", "done"]
    assert not came["follow-up", "asked back"]


def come_of(example: Example, home: Home, call: ToolCall) -> str:
    """Return what the runtime makes of a call."""
    check_arguments(call)
    try:
        if call.name == "HassGetState":
            return "looked up" if resolve(home, target_of(call.arguments)) else "nothing"
        return "done" if plan(call, home) else "nothing"
    except UnknownDeviceError:
        return "unknown"
    except CallError as error:
        return "asked back" if str(error).startswith("Which ") else str(error)


def test_a_bare_word_means_one_device_where_it_is_partial_and_several_where_the_runtime_asks() -> None:
    for talk, example in some(12):
        if example.kind in {"partial-name", "ask-back"} and example.answer.calls:
            found = resolve(talk.house.devices, target_of(example.answer.calls[0].arguments))
            assert (len(found) == 1) == (example.kind == "partial-name"), (example, talk.head)


def test_a_name_in_a_call_is_spelt_as_the_home_spells_it() -> None:
    for talk, example in some(2):
        names = {device.name for device in talk.house.devices}
        areas = {device.area for device in talk.house.devices}
        if example.kind in AS_SAID:
            continue
        for call in example.answer.calls:
            if "Timer" not in call.name:
                assert call.arguments.get("name", None) in {None, *names}
                assert call.arguments.get("area", None) in {None, *areas}


def test_training_never_uses_a_held_out_pattern() -> None:
    for _, example in some(5):
        for pattern in example.patterns:
            intent, _, skeleton = pattern.partition("|")
            assert not is_held_out(intent, skeleton)


def test_sentences_are_one_line_and_end() -> None:
    for _, example in some(6):
        assert bool(example.answer.text) != bool(example.answer.calls)
        if example.answer.text:
            assert "\n" not in example.answer.text
            assert example.answer.text[-1] in ".?!"
            assert example.answer.text[0] == example.answer.text[0].upper()


def test_every_kind_of_question_comes_up() -> None:
    kinds = {example.kind for _, example in some(7)}
    assert kinds >= {
        *(
            "on-off",
            "cover",
            "lock",
            "brightness",
            "color",
            "climate",
            "position",
            "speed",
            "volume",
            "media",
            "vacuum",
        ),
        *(
            "scene",
            "timer",
            "list-item",
            "several",
            "indirect",
            "yes-no",
            "state",
            "property",
            "reading",
            "area-reading",
        ),
        *(
            "person",
            "who",
            "time",
            "list",
            "absent",
            "ask-back",
            "ask-back-answer",
            "follow-up",
            "partial-name",
            "event",
        ),
        *("talk", "off-topic"),
    }


@pytest.mark.parametrize("maker", [maker for maker, _ in MAKERS], ids=lambda maker: maker.__name__)
def test_each_maker_finds_a_home_to_ask_about(maker: object) -> None:
    rng = Random(11)
    made = [of_kind(maker, homes.house(rng, 6, 16), seed) for seed in range(60)]
    assert any(made)


def test_a_question_for_a_person_is_answered_by_where_they_are() -> None:
    asked = [(talk, example) for talk, example in some(8) if example.kind == "person"]
    assert asked
    for talk, example in asked:
        assert example.answer.text in {
            f"{one.name} is {one.state}." for one in talk.house.devices if one.domain == "person"
        }
