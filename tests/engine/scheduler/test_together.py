"""Steps of several answers at once: each is what it would be alone, and no other slot is touched."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scheduling import BATCH, GREEDY, IDS, LIVELY, PROMPTS, VOICE, answers_of, fresh

from edge_assistant.engine import SamplingParams
from edge_assistant.engine.speculate import Pace

RECIPES = {
    "float": ({}, {}),
    "int8 cache": ({}, {"cache": "int8"}),
    "int4": ({}, {"bits": 4}),
    "heads the kernel cannot rotate": ({"head_dim": 24}, {}),
    "a window that keeps all": ({"sliding_window": 16}, {"window_cache": "full"}),
    "experts": ({"num_local_experts": 4, "num_experts_per_tok": 2}, {}),
}


@pytest.mark.parametrize("params", [GREEDY, LIVELY], ids=["greedy", "lively"])
@pytest.mark.parametrize(("shape", "recipe"), RECIPES.values(), ids=RECIPES)
def test_answers_computed_together_are_those_computed_alone(
    engine_of, tiny_bundle, machine, batching, params, shape, recipe
):
    bundle = tiny_bundle(shape, **recipe)
    engine = engine_of(bundle, sequences=4)
    answers = answers_of(engine, machine, PROMPTS, params)
    assert answers == [fresh(bundle, prompt, params) for prompt in PROMPTS]
    assert max(engine.metrics().batches) >= 3


def test_bounded_windows_are_computed_one_by_one(engine_of, tiny_bundle, machine, batching):
    bundle = tiny_bundle({"sliding_window": 16})
    engine = engine_of(bundle, sequences=4)
    answers = answers_of(engine, machine, PROMPTS, GREEDY)
    assert answers == [fresh(bundle, prompt) for prompt in PROMPTS]
    assert set(engine.metrics().batches) == {1}


def test_answers_with_a_seed_step_alone_and_all_else_together(engine_of, machine, batching):
    """Several rows may be rounded otherwise than one, and a seed gives one text whoever else asks."""
    engine = engine_of(sequences=4)
    seeded = replace(LIVELY, seed=7)
    machine.hold()
    generations = [
        engine.generate(prompt, params)
        for prompt, params in zip(PROMPTS, [seeded, GREEDY, seeded, GREEDY], strict=True)
    ]
    machine.held()
    machine.let_go()
    for generation in generations:
        list(generation)
    batches = engine.metrics().batches
    assert set(batches) == {1, 2}
    assert batches[1] >= 2 * (seeded.max_tokens - 1)


def test_a_guess_is_held_against_a_step_with_all_that_could_take_one(engine_of, machine, batching, monkeypatch):
    """One with a seed steps alone, whoever else asks."""
    weighed: list[int] = []
    monkeypatch.setattr(Pace, "look", lambda self: True)
    monkeypatch.setattr(Pace, "worth", lambda self, guess, others: weighed.append(others) or 0)
    engine = engine_of(sequences=4, guesses=8)
    list(engine.generate(PROMPTS[0], GREEDY))
    assert {*weighed} == {0}
    weighed.clear()
    machine.hold()
    how = [GREEDY, GREEDY, replace(LIVELY, seed=7), GREEDY]
    generations = [engine.generate(prompt, params) for prompt, params in zip(PROMPTS, how, strict=True)]
    machine.held()
    machine.let_go()
    for generation in generations:
        list(generation)
    assert max(weighed) == 2


def test_guesses_are_run_alone_and_all_else_together(engine_of, tiny_bundle, machine, batching, monkeypatch):
    monkeypatch.setattr(Pace, "look", lambda self: True)
    monkeypatch.setattr(Pace, "worth", lambda self, guess, others: len(guess.tokens))
    bundle = tiny_bundle()
    repeated = [1, *(list(IDS[:12]) * 4)]
    engine = engine_of(bundle, sequences=4, guesses=8)
    prompts = [repeated, *PROMPTS[:3]]
    answers = answers_of(engine, machine, prompts, GREEDY)
    assert answers == [fresh(bundle, prompt) for prompt in prompts]
    counts = engine.metrics().by_priority["interactive"]
    assert counts.accepted_prediction_tokens + counts.rejected_prediction_tokens > 0
    assert max(engine.metrics().batches) >= 2


def test_a_slot_between_two_others_is_not_touched(tiny_bundle, engine_of, machine, batching):
    """The middle one is full to its last token but one, and idle while its neighbours step together."""
    bundle = tiny_bundle()
    engine = engine_of(bundle, sequences=3, kv_cache_bytes=3 * 100 * bundle.manifest.cache_size.per_token)
    machine.hold()
    short, long = SamplingParams(max_tokens=4), SamplingParams(max_tokens=12)
    full = [*PROMPTS[2], *IDS[145:156]]
    outer = [engine.generate(PROMPTS[0], long), engine.generate(full, short), engine.generate(PROMPTS[1], long)]
    machine.let_go()
    answers = [list(generation) for generation in outer]
    assert answers == [
        fresh(bundle, p, s) for p, s in zip((PROMPTS[0], full, PROMPTS[1]), (long, short, long), strict=True)
    ]
    again = engine.generate([*full, *answers[1][:2]], SamplingParams(max_tokens=2))
    assert list(again) == answers[1][2:]
    assert again.usage.cached_tokens == len(full) + 1


def test_one_that_waits_between_two_others_with_its_slot_full_loses_no_token(tiny_bundle, engine_of, machine, batching):
    """Its prompt fills the slot, and two urgent ones come as the last of it is read."""
    bundle = tiny_bundle()
    engine = engine_of(bundle, sequences=3, kv_cache_bytes=3 * 40 * bundle.manifest.cache_size.per_token)
    sliding = SamplingParams(max_tokens=9, overflow="slide")
    one = engine_of(bundle, kv_cache_bytes=40 * bundle.manifest.cache_size.per_token)
    alone = list(one.generate(IDS[:40], sliding))
    list(engine.generate(PROMPTS[3], SamplingParams(1)))  # so that the next one has the slot in the middle
    machine.hold()
    between = engine.generate(IDS[:40], sliding, claim=BATCH)
    machine.held()
    for _ in range(2):
        machine.step()
    outer = [engine.generate(prompt, SamplingParams(9), claim=VOICE) for prompt in (PROMPTS[3], PROMPTS[3][:2])]
    machine.let_go()
    for generation in outer:
        assert len(list(generation)) == 9
    assert engine.metrics().batches[2] > 5
    assert list(between) == alone
