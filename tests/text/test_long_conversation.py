"""A conversation that forgets its oldest turns: what is left of it is not read again, and its answers are answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_assistant.config import EngineSettings
from edge_assistant.engine import SamplingParams
from edge_assistant.home.tools import TOOLS
from edge_assistant.text.chat import ChatModel
from edge_assistant.text.messages import Assistant, System, ToolCall, ToolResult, User

HOME_MINI = Path(__file__).parents[2] / "models/home-mini"
SYSTEM = System("You are the assistant of this home.")
HOME = "Monday 14:05\nhall:\n- light: lamp, {lamp}\n- lock: front door, locked\nkitchen:\n- light: desk lamp, off\n\n"
QUESTIONS = [
    "is the front door locked?",
    "turn on the lamp in the hall",
    "is the desk lamp on?",
    "turn off the hall lamp",
]
TURNS_KEPT = 3


def hold(cache_reuse: int) -> tuple[list[Assistant], list[int]]:
    """Return the answers of a conversation of 16 turns, and of each how many tokens of its prompt were in the cache."""
    settings = EngineSettings(threads=1, sequences=1, cache_reuse=cache_reuse, prefix_bytes=0)
    turns, answers, cached, lamp = [], [], [], "off"
    with ChatModel.load(HOME_MINI, settings) as model:
        for number in range(16):
            question = QUESTIONS[number % len(QUESTIONS)]
            kept = [message for turn in turns[-TURNS_KEPT:] for message in turn]
            messages = [SYSTEM, *kept, User(HOME.format(lamp=lamp) + question)]
            reply = model.chat(messages, TOOLS, SamplingParams(max_tokens=64))
            assert reply.finish_reason == "stop"
            calls = tuple(ToolCall(call.name, call.arguments, f"call{number:05d}") for call in reply.message.calls)
            acts = [Assistant("", calls), ToolResult(calls[0].id, "done")] if calls else []
            turns.append([User(question), *acts, Assistant(reply.message.text or "Done.")])
            lamp = {1: "on", 3: "off"}.get(number % len(QUESTIONS), lamp)
            answers.append(reply.message)
            cached.append(reply.usage.cached_tokens)
    return answers, cached


@pytest.mark.skipif(not (HOME_MINI / "manifest.json").is_file(), reason="models/home-mini holds no bundle")
def test_turns_that_went_are_evicted_and_the_answers_stay_answers():
    moved, cached = hold(cache_reuse=16)
    exact, cached_exactly = hold(cache_reuse=0)
    assert all(one >= other for one, other in zip(cached, cached_exactly, strict=True))
    assert min(cached[TURNS_KEPT + 1 :]) >= max(cached_exactly[TURNS_KEPT + 1 :]) + 16
    for number, (one, other) in enumerate(zip(moved, exact, strict=True)):
        asked_to_act = QUESTIONS[number % len(QUESTIONS)].startswith("turn")
        assert bool(one.calls) == bool(other.calls) == asked_to_act
        assert bool(one.text) != asked_to_act
