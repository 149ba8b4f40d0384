"""Answers longer than the cache: they go on, as they would from what is left of the context, in the memory there is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from edge_assistant.config import EngineSettings
from edge_assistant.engine import Claim, Constraint, Engine, Grammars, SamplingParams
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.session import Session
from edge_assistant.engine.speculate import Pace
from edge_assistant.errors import ContextOverflowError, EvictionError, SamplingError
from edge_assistant.text.tokenizer import Tokenizer

ONE_LAYER = {"num_hidden_layers": 1}
PROMPT = list(np.random.default_rng(2).integers(14, 270, 30))
SINKS = 4


def engine_of(bundle, capacity: int, **settings: int) -> Engine:
    budget = bundle.manifest.cache_size.of(capacity)
    return Engine.load(bundle, EngineSettings(threads=1, sequences=1, kv_cache_bytes=budget, **settings))


def sliding(most: int, **params: object) -> SamplingParams:
    return SamplingParams(max_tokens=most, overflow="slide", **params)


def best_of_what_is_left(bundle, capacity: int, prompt: list[int], count: int) -> list[int]:
    """Return a greedy answer for which the context is read anew at every token, without what was evicted."""
    session = Session(bundle, KvCache(bundle.manifest, capacity), EngineSettings(threads=1))
    context, answer = list(prompt), []
    for _ in range(count):
        session.cache.rewind(0)
        answer.append(int(session.run(context).argmax()))
        if len(context) == capacity:
            del context[SINKS : SINKS + capacity // 4]
        context.append(answer[-1])
    return answer


def test_in_one_layer_an_answer_goes_on_as_from_what_is_left(tiny_bundle):
    bundle = tiny_bundle(ONE_LAYER)
    with engine_of(bundle, 40) as engine:
        answer = engine.generate(PROMPT, sliding(200))
        assert list(answer) == best_of_what_is_left(bundle, 40, PROMPT, 200)
        assert (answer.finish_reason, answer.usage.completion_tokens) == ("length", 200)
        assert engine._open_scheduler._slots.all[0].cache.length <= 40


@pytest.mark.parametrize(("cache_reuse", "kept"), [(0, SINKS), (8, 30)])
def test_what_a_slide_has_touched_is_kept_where_it_may_be(tiny_bundle, cache_reuse, kept):
    with engine_of(tiny_bundle(), 40, cache_reuse=cache_reuse) as engine, engine_of(tiny_bundle(), 40) as fresh:
        list(engine.generate(PROMPT, sliding(100)))
        onward = [*engine._open_scheduler._slots.all[0].cache.context[:30], 20]
        answer = engine.generate(onward, SamplingParams(9))
        same = list(answer) == list(fresh.generate(onward, SamplingParams(9)))
        assert answer.usage.cached_tokens == kept
        assert same or cache_reuse


@pytest.mark.parametrize("recipe", [{}, {"cache": "int8"}], ids=["float", "int8"])
def test_an_answer_that_fits_is_the_same_and_one_that_does_not_begins_the_same(tiny_bundle, recipe):
    bundle = tiny_bundle(**recipe)
    with engine_of(bundle, 60) as engine:
        whole = list(engine.generate(PROMPT, SamplingParams(30)))
        assert list(engine.generate(PROMPT, sliding(30))) == whole
        assert list(engine.generate(PROMPT, sliding(150)))[:30] == whole


@pytest.mark.parametrize("params", [{}, {"temperature": 0.7}], ids=["greedy", "lively"])
def test_guesses_change_nothing_where_tokens_go(tiny_bundle, monkeypatch, one_chance, params):
    """Both evict at the same places of the text: guesses are never run where the cache would be too short for them."""
    monkeypatch.setattr(Pace, "look", lambda self: True)
    monkeypatch.setattr(Pace, "worth", lambda self, guess, others: len(guess.tokens))
    bundle, prompt = tiny_bundle(ONE_LAYER), PROMPT[:6] * 5
    with engine_of(bundle, 40, guesses=0) as plain, engine_of(bundle, 40, guesses=8) as guessing:
        expected = list(plain.generate(prompt, sliding(200, **params)))
        answer = guessing.generate(prompt, sliding(200, **params))
        assert list(answer) == expected
        assert answer.usage.accepted_prediction_tokens > 0


@pytest.mark.parametrize("capacity", range(1, 9))
def test_the_smallest_caches_slide_too(tiny_bundle, capacity):
    with engine_of(tiny_bundle(), capacity) as engine:
        for length in range(1, capacity + 1):
            assert len(list(engine.generate(PROMPT[:length], sliding(30)))) == 30


def test_a_prompt_that_does_not_fit_is_still_refused(tiny_bundle):
    with engine_of(tiny_bundle(), 20) as engine:
        with pytest.raises(ContextOverflowError, match="10 more than the 20"):
            engine.generate(PROMPT, sliding(5))
        with pytest.raises(ContextOverflowError, match="1 more than the 20"):
            engine.generate(PROMPT[:15], SamplingParams(6))
        assert len(list(engine.generate(PROMPT[:20], sliding(40)))) == 40
    with pytest.raises(SamplingError, match="overflow"):
        SamplingParams(5, overflow="truncate")


def test_a_bounded_window_slides_by_itself_or_not_at_all(tiny_bundle):
    bundle = tiny_bundle({"sliding_window": 8, "max_position_embeddings": 4000})
    with engine_of(bundle, 4000) as engine:
        assert len(list(engine.generate(PROMPT, sliding(30)))) == 30
        with pytest.raises(EvictionError, match="30 tokens cannot be taken out of a bounded window"):
            engine.generate(PROMPT, sliding(4000))


def test_what_a_grammar_forces_may_be_longer_than_the_cache(tiny_bundle):
    bundle = tiny_bundle(ONE_LAYER)
    file, words = bundle.tokenizer_path, "the lamp in the hall is on and the door is shut " * 3
    schema = {"type": "array", "items": {"const": words}, "minItems": 2, "maxItems": 2}
    vocab_size = bundle.manifest.architecture.vocab_size
    grammar = Grammars(file.read_bytes(), vocab_size, {2}, leading_space=False).compile(Constraint.json_schema(schema))
    with engine_of(bundle, 40) as engine:
        answer = engine.generate(PROMPT, sliding(500, stop_ids=frozenset({2}), grammar=grammar))
        assert json.loads(Tokenizer(file).decode(list(answer))) == [words, words]
        assert answer.finish_reason == "stop"


def test_an_answer_that_is_closed_while_it_slides_leaves_the_cache_whole(tiny_bundle):
    bundle = tiny_bundle(ONE_LAYER)
    expected = best_of_what_is_left(bundle, 40, PROMPT, 60)
    with engine_of(bundle, 40) as engine:
        for taken in (1, 9, 10, 11, 12, 21, 50):
            generation = engine.generate(PROMPT, sliding(100))
            list(islice(generation, taken))
            generation.close()
            assert list(engine.generate(PROMPT, sliding(60))) == expected


def test_a_story_of_many_capacities_is_still_one(stories, export_bundle):
    """It is likely to the model itself, and no loop: with keys that are not turned it writes no words (5 nats)."""
    with engine_of(export_bundle(stories, bits=32), 128) as engine:
        ids = list(engine.generate([1], sliding(1280, temperature=0.7, seed=3)))
        scores = engine.score(ids[-128:])
    logits = scores[63:-1] - scores[63:-1].max(axis=1, keepdims=True)
    nats = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(64), ids[-64:]]
    assert nats.mean() < 2
    assert len(set(ids[-128:])) > 30


@pytest.mark.parametrize("kind", ["answer", "conversation"])
def test_memory_stays_flat_over_ten_capacities(grown, kind):
    """Both fill the cache first, and then ten times more: an answer slides, a conversation forgets its oldest turns.

    What the allocator takes to get going, some megabytes over the first capacities, is not counted.
    """
    first, *later = grown[kind][2:]
    assert len(later) >= 10
    assert grown["evictions"] > 100
    assert first * 0.98 <= min(later) <= max(later) <= first * 1.02


@pytest.fixture(scope="module")
def grown(tiny_bundle):
    """Return what `growth.py` measured in a process of its own, with a cache of 32 MiB.

    The C library has one heap there. It has one for each thread otherwise, and keeps in each some of what was freed.
    """
    shape = {"num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128, "num_hidden_layers": 4}
    command = [sys.executable, Path(__file__).with_name("growth.py"), tiny_bundle(shape).path]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def test_a_slide_that_gives_up_its_slot_goes_on_from_what_is_left(tiny_bundle):
    """A more urgent answer takes the only slot: what went does not come back, and in one layer nothing else changes."""
    bundle = tiny_bundle(ONE_LAYER)
    expected = best_of_what_is_left(bundle, 40, PROMPT, 200)
    with engine_of(bundle, 40) as engine:
        long = engine.generate(PROMPT, sliding(200), claim=Claim(priority="batch"))
        said = list(islice(long, 60))
        for length in (20, 25, 30):
            assert len(list(engine.generate(PROMPT[:length], SamplingParams(5), claim=Claim(priority="voice")))) == 5
            said += islice(long, 20)
        assert said + list(long) == expected


@pytest.mark.parametrize("capacity", range(1, 20))
def test_what_makes_room_is_of_the_context_and_enough(tiny_bundle, capacity):
    """An answer takes what went out of its own text: nothing may count that was not there."""
    for length in range(capacity + 1):
        for tokens in range(capacity // 2 + 1):
            cache = KvCache(tiny_bundle().manifest, capacity)
            with cache.step(range(length)):
                pass
            gone = cache.make_room(tokens)
            left = np.delete(np.arange(length), gone) if gone else np.arange(length)
            np.testing.assert_array_equal(cache.context, left)
            assert gone is None or gone.stop <= length
            assert cache.length + tokens <= capacity
