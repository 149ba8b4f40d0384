"""The held-out sets: what each is made of, and that a written answer can be carried out in its home."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from edge_assistant.errors import CallError, UnknownDeviceError
from edge_assistant.home.actions import check_arguments, plan
from edge_assistant.home.registry import Home
from edge_assistant.home.resolve import resolve, target_of
from edge_assistant.text.messages import Assistant, ToolCall
from edge_assistant_export.reference_model.__main__ import main
from edge_assistant_export.reference_model.evaluate import as_json, evaluate, table
from edge_assistant_export.reference_model.lexicon.names import AREAS
from edge_assistant_export.reference_model.phrasing import is_held_out
from edge_assistant_export.reference_model.splits import Case, cases, read_answer, same

COUNT = 240


@pytest.mark.parametrize("split", ["a", "b", "c"])
def test_a_split_is_always_the_same(split: str) -> None:
    assert list(cases(split, 60)) == list(cases(split, 60))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [("--splits", "x"), ("--splits", "a,b"), ("--splits", ""), ("--count", "0"), ("--count", "-1")]
)
def test_what_is_no_held_out_set_has_no_score(wrong: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["reference_model", "evaluate", "--bundle", "nowhere", *wrong])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2


def test_split_a_has_names_that_are_made_up_and_known_patterns() -> None:
    found = list(cases("a", COUNT))
    areas = {area.lower() for case in found for area in case.talk.house.areas}
    assert len(areas - set(AREAS)) > 0.7 * len(areas)
    assert not any(is_held_out(*_parts(pattern)) for case in found for pattern in case.example.patterns)


def test_split_b_has_held_out_patterns_alone() -> None:
    found = list(cases("b", COUNT))
    assert all(case.example.patterns for case in found)
    assert all(is_held_out(*_parts(pattern)) for case in found for pattern in case.example.patterns)
    assert len({case.example.kind for case in found}) > 20


def test_split_c_is_two_hundred_sentences_of_all_sorts() -> None:
    found = list(cases("c"))
    assert len(found) >= 200
    assert len({case.example.question for case in found}) == len(found)
    assert len(Counter(case.example.kind for case in found)) > 25


@pytest.mark.parametrize("case", list(cases("c")), ids=lambda case: case.example.question)
def test_the_runtime_carries_each_written_call_out_or_says_why_not(case: Case) -> None:
    home = Home(case.talk.house.devices)
    kind, nowhere = case.example.kind, ("what's the temperature in the garage?",)
    for call in case.example.answer.calls:
        check_arguments(call)
        if "Timer" in call.name:
            continue
        if kind == "absent" or case.example.question in nowhere:
            with pytest.raises(UnknownDeviceError, match=r"^There is no "):
                resolve(home, target_of(call.arguments))
        elif call.name == "HassGetState":
            assert len(resolve(home, target_of(call.arguments))) > (kind == "ask-back")
        elif kind == "ask-back":
            with pytest.raises(CallError, match=r"^Which one: "):
                plan(call, home)
        else:
            assert plan(call, home)


def test_calls_are_compared_parsed_and_sentences_exactly() -> None:
    one = Assistant("", (ToolCall("HassTurnOn", {"name": "lamp", "area": "hall"}),))
    assert same(one, read_answer([{"HassTurnOn": {"area": "hall", "name": "lamp"}}]))
    assert not same(one, read_answer([{"HassTurnOn": {"name": "lamp"}}]))
    assert not same(one, Assistant("", one.calls * 2))
    assert same(Assistant("Yes."), Assistant("Yes."))
    assert not same(Assistant("Yes."), Assistant("yes."))


def test_scores_are_counted_by_kind() -> None:
    scores = evaluate(lambda asked: ((case, case.example.kind == "talk", "said") for case in asked), "c", 0)
    kinds = as_json(scores)["c"]["by_kind"]
    assert kinds["talk"][0] == kinds["talk"][1] > 0
    assert kinds["on-off"][0] == 0
    assert len(scores["c"].misses) == sum(asked - right for right, asked in kinds.values())
    assert f"| talk | {kinds['talk'][0]}/{kinds['talk'][1]} |" in table(scores)


def _parts(pattern: str) -> tuple[str, str]:
    intent, _, skeleton = pattern.partition("|")
    return intent, skeleton
