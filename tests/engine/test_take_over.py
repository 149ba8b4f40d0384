"""What several ask at once of one text: it is read once, and nobody's answer is another for it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edge_assistant.config import EngineSettings
from edge_assistant.engine import Claim, Engine, SamplingParams
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.prefixes import SHORTEST, Prefixes
from edge_assistant.engine.session import Session

IDS = np.random.default_rng(5).integers(14, 270, 200)
TEXT = IDS[:70]
QUESTIONS = [[*TEXT, *IDS[start : start + length]] for start, length in ((80, 5), (90, 9), (100, 1), (110, 17))]
"""Of one text, which none of them says will come again."""
PARAMS = SamplingParams(max_tokens=12)
SHAPES = {"dense": {}, "window": {"sliding_window": 8}, "wide window": {"sliding_window": 150}}


def settings_of(**settings) -> EngineSettings:
    return EngineSettings(**{"threads": 1, "prefill_chunk": 16, "prefix_bytes": 0} | settings)


def fresh(bundle, prompt, params=PARAMS) -> list[int]:
    with Engine.load(bundle, settings_of(sequences=1)) as engine:
        return list(engine.generate(prompt, params))


@pytest.fixture
def at_the_first_run(monkeypatch):
    """Return a function that lets an action happen in the first run of the model that comes."""
    run = Session.run

    def let(action):
        waiting = [action]

        def one(session, ids):
            while waiting:
                waiting.pop()()
            return run(session, ids)

        monkeypatch.setattr(Session, "run", one)

    return let


@pytest.mark.parametrize("guesses", [0, 8])
@pytest.mark.parametrize("recipe", [{}, {"cache": "int8"}, {"window_cache": "full"}], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_answers_to_one_text_are_those_of_an_engine_each(tiny_bundle, shape, recipe, guesses):
    bundle = tiny_bundle(shape, **recipe)
    with Engine.load(bundle, settings_of(sequences=4, guesses=guesses)) as engine:
        generations = [engine.generate(prompt, PARAMS) for prompt in QUESTIONS * 2]
        answers = [list(generation) for generation in generations]
    assert answers == [fresh(bundle, prompt) for prompt in QUESTIONS] * 2


def test_the_text_is_read_once(tiny_bundle, at_the_first_run):
    asked = []
    with Engine.load(tiny_bundle(), settings_of(sequences=4)) as engine:
        at_the_first_run(lambda: asked.extend(engine.generate(prompt, PARAMS) for prompt in QUESTIONS[1:]))
        generations = [engine.generate(QUESTIONS[0], PARAMS)]
        list(generations[0])
        for generation in asked:
            list(generation)
    usages = [generation.usage for generation in (*generations, *asked)]
    read = sum(usage.prompt_tokens - usage.cached_tokens for usage in usages)
    # Some of the others are shorter than what is worth a copy behind a chunk that is read.
    tails = sum(len(prompt) - len(TEXT) for prompt in QUESTIONS)
    assert read - len(TEXT) - tails in range((len(QUESTIONS) - 1) * SHORTEST)


def test_one_that_gave_way_goes_on_where_another_of_its_kind_is(tiny_bundle, monkeypatch):
    """Two write the same, and an urgent one takes the slot of one of them for a while."""
    bundle, prompt = tiny_bundle(), QUESTIONS[3]
    taken, take_over = [], Prefixes.take_over

    def counted(prefixes, session, text):
        taken.append((count := take_over(prefixes, session, text), len(text)))
        return count

    monkeypatch.setattr(Prefixes, "take_over", counted)
    long, batch = SamplingParams(max_tokens=40), Claim(priority="batch")
    with Engine.load(bundle, settings_of(sequences=2, guesses=0)) as engine:
        one, other = (engine.generate(prompt, long, claim=batch) for _ in range(2))
        said = [next(iter(one)), next(iter(other))]
        list(engine.generate(IDS[150:190], PARAMS, claim=Claim(priority="voice")))
        answers = [[said[0], *one], [said[1], *other]]
    assert answers == [fresh(bundle, prompt, long)] * 2
    assert max(count for count, _ in taken) >= len(prompt) - 1


class Slots:
    """Caches of one bundle, which hold rows of chance, and the prefixes over them."""

    def __init__(self, manifest, held, adapters=None):
        self.caches = [KvCache(manifest, 150) for _ in held]
        adapters = adapters or [None] * len(held)
        self.sessions = [
            SimpleNamespace(cache=cache, adapter=adapter) for cache, adapter in zip(self.caches, adapters, strict=True)
        ]
        for number, (cache, text) in enumerate(zip(self.caches, held, strict=True)):
            chance = np.random.default_rng(number)
            shape = np.array(cache.rows(0, len(text))).shape
            cache.put(np.array(text), chance.normal(size=shape).astype(np.float32))
        self.prefixes = Prefixes(0, self.sessions)


@pytest.fixture
def slots(tiny_bundle):
    """Return a function that makes slots which hold texts, by their adapters."""
    return lambda *held, **more: Slots(tiny_bundle(**more.pop("recipe", {})).manifest, held, **more)


def test_the_rows_are_copied_of_whoever_has_most(slots):
    made = slots(TEXT[:10], TEXT[:30], TEXT[:50], [*TEXT[:20], *IDS[90:130]])
    reader, _, most, _ = made.caches
    before = np.array(reader.rows(0, 10))
    assert made.prefixes.take_over(made.sessions[0], TEXT) == 40
    np.testing.assert_array_equal(reader.context, TEXT[:50])
    np.testing.assert_array_equal(np.array(reader.rows(0, 10)), before)
    np.testing.assert_array_equal(np.array(reader.rows(10, 50)), np.array(most.rows(10, 50)))
    np.testing.assert_array_equal(most.context, TEXT[:50])
    assert made.prefixes.take_over(made.sessions[0], TEXT) == 0


def test_no_more_is_taken_than_the_text_has(slots):
    made = slots([], TEXT)
    assert made.prefixes.take_over(made.sessions[0], TEXT[:33]) == 33


@pytest.mark.parametrize("text", [TEXT[:1], TEXT[: SHORTEST - 1], IDS[100:150]], ids=len)
def test_what_is_short_or_another_is_not_copied(slots, text):
    made = slots([], text)
    assert made.prefixes.take_over(made.sessions[0], TEXT) == 0


def test_what_another_adapter_has_computed_is_not_taken(slots):
    mine, its = object(), object()
    made = slots([], TEXT, TEXT[:20], adapters=[mine, its, mine])
    assert made.prefixes.take_over(made.sessions[0], TEXT) == 20


def test_of_what_an_eviction_has_moved_only_what_stands_before_it_is_taken(slots):
    made = slots([], [*TEXT[:20], *IDS[100:110], *TEXT[20:40]], TEXT[:10])
    made.caches[1].evict(20, 30)
    np.testing.assert_array_equal(made.caches[1].context, TEXT[:40])
    assert made.prefixes.take_over(made.sessions[0], TEXT) == 20


def test_of_a_window_that_has_dropped_rows_nothing_is_taken(tiny_bundle):
    text = np.random.default_rng(6).integers(14, 270, 2000)
    cache = KvCache(tiny_bundle({"sliding_window": 8}).manifest, len(text))
    for length in (cache.longest_prefix, len(text)):
        while cache.length < length:
            end = cache.length + cache.longest_step(length - cache.length)
            with cache.step(text[cache.length : end]):
                pass
        assert cache.lends(text) == (length if length == cache.longest_prefix else 0)


def test_on_a_device_whose_memory_is_its_own_it_is_read_instead(slots):
    made = slots([], TEXT)
    made.caches[0].device = made.caches[0].device._replace(addressable=False)
    assert made.prefixes.take_over(made.sessions[0], TEXT) == 0
