"""Generation: the same ids whatever ran before, an end for every reason, and a cache that survives them all."""

from __future__ import annotations

import threading
from itertools import count, islice

import numpy as np
import pytest

from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine, SamplingParams, Usage
from edge_assistant.engine.session import Session
from edge_assistant.errors import (
    CacheBudgetError,
    ContextOverflowError,
    EngineClosedError,
    PromptError,
)

SETTINGS = EngineSettings(threads=1, prefill_chunk=16)
PROMPT = list(np.random.default_rng(2).integers(14, 270, 40))
GREEDY = SamplingParams(max_tokens=30)
LIVELY = SamplingParams(
    max_tokens=30, temperature=1.5, top_k=50, top_p=0.95, min_p=0.01, repetition_penalty=1.2, seed=7
)
ONCE_UPON_A_TIME = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball."
)


@pytest.fixture
def engine(tiny_bundle):
    with Engine.load(tiny_bundle(), SETTINGS) as engine:
        yield engine


def fresh(bundle, prompt=PROMPT, params=GREEDY) -> list[int]:
    """Return what a newly loaded engine answers."""
    with Engine.load(bundle, SETTINGS) as engine:
        return list(engine.generate(prompt, params))


@pytest.mark.parametrize("recipe", [{"bits": 32}, {"bits": 4}, {"bits": 32, "cache": "int8"}])
@pytest.mark.parametrize("params", [GREEDY, LIVELY], ids=["greedy", "lively"])
def test_the_same_seed_gives_the_same_tokens_whatever_the_cache_holds(tiny_bundle, recipe, params):
    bundle = tiny_bundle(**recipe)
    expected = fresh(bundle, params=params)
    with Engine.load(bundle, SETTINGS) as engine:
        for other in ([5], PROMPT[:10] + [99] * 30, PROMPT + expected, PROMPT):
            list(engine.generate(other, LIVELY))
            assert list(engine.generate(PROMPT, params)) == expected


def test_another_seed_gives_other_tokens(engine):
    answers = {tuple(engine.generate(PROMPT, SamplingParams(30, temperature=1.5, seed=seed))) for seed in range(5)}
    assert len(answers) == 5


@pytest.mark.parametrize("params", [GREEDY, LIVELY], ids=["greedy", "lively"])
def test_an_answer_that_is_continued_goes_on_as_it_would_have(engine, params):
    whole = list(engine.generate(PROMPT, params))
    assert list(engine.generate(PROMPT + whole[:11], params))[:19] == whole[11:]


def test_greedy_takes_the_best_of_the_scores(engine):
    answer = list(engine.generate(PROMPT, GREEDY))
    scores = engine.score(PROMPT + answer)
    assert scores.shape == (70, 270)
    assert list(scores.argmax(axis=1)[len(PROMPT) - 1 : -1]) == answer


def test_usage_counts_what_was_in_the_cache(tiny_bundle):
    with Engine.load(tiny_bundle(), EngineSettings(threads=1, sequences=1, guesses=0)) as engine:
        first = engine.generate(PROMPT, GREEDY)
        answer = list(first)
        assert first.usage == Usage(40, 30, 0)
        again = engine.generate(PROMPT, GREEDY)
        list(again)
        assert again.usage == Usage(40, 30, 39)
        # The last token of an answer was drawn, but never read.
        onward = engine.generate([*PROMPT, *answer, 20], SamplingParams(1))
        list(onward)
        assert onward.usage == Usage(71, 1, 69)
        other = engine.generate([*PROMPT[:10], 269, *PROMPT[11:]], SamplingParams(1))
        list(other)
        assert other.usage == Usage(40, 1, 10)


def test_timing_adds_up_and_counts_only_the_engine_s_work(engine):
    generation = engine.generate(PROMPT, GREEDY)
    assert (generation.timing.prefill_s, generation.timing.decode_s) == (0, 0)
    next(generation)
    first = generation.timing
    assert first.prefill_s > 0 == first.decode_s
    list(generation)
    assert generation.timing.prefill_s == first.prefill_s
    assert generation.timing.decode_s > 0


def test_a_stop_id_ends_the_answer_and_is_no_part_of_it(engine):
    whole = list(engine.generate(PROMPT, GREEDY))
    stop = whole[12]
    generation = engine.generate(PROMPT, SamplingParams(30, stop_ids=frozenset({stop, 0})))
    assert list(generation) == whole[: whole.index(stop)]
    assert generation.finish_reason == "stop"
    assert generation.usage.completion_tokens == whole.index(stop)


def test_the_last_token_of_all_ends_it_by_length_unless_it_stops(engine):
    whole = list(engine.generate(PROMPT, GREEDY))
    generation = engine.generate(PROMPT, GREEDY)
    assert [next(generation) for _ in range(30)] == whole
    assert generation.finish_reason == "length"
    assert list(generation) == []
    first = engine.generate(PROMPT, SamplingParams(1, stop_ids=frozenset({whole[0]})))
    assert list(first) == []
    assert (first.finish_reason, first.usage.completion_tokens) == ("stop", 0)


@pytest.mark.parametrize("chunks", [1, 2])
def test_reading_that_is_cancelled_leaves_what_was_read(engine, tiny_bundle, monkeypatch, chunks):
    cancel, runs, run = threading.Event(), count(1), Session.run

    def cancelling(session, ids):
        logits = run(session, ids)
        if next(runs) == chunks:
            cancel.set()
        return logits

    monkeypatch.setattr(Session, "run", cancelling)
    generation = engine.generate(PROMPT, GREEDY, cancel)
    assert list(generation) == []
    assert generation.finish_reason == "cancelled"
    again = engine.generate(PROMPT, GREEDY)
    assert list(again) == fresh(tiny_bundle())
    assert again.usage.cached_tokens == 16 * chunks


@pytest.mark.parametrize("taken", [1, 2, 10])
def test_a_cancelled_answer_is_a_beginning_and_leaves_the_cache_whole(engine, tiny_bundle, taken):
    whole, cancel = fresh(tiny_bundle()), threading.Event()
    generation = engine.generate(PROMPT, GREEDY, cancel)
    answer = list(islice(generation, taken))
    cancel.set()
    assert answer + list(generation) == whole[:taken]
    assert (generation.finish_reason, generation.usage.completion_tokens) == ("cancelled", taken)
    again = engine.generate(PROMPT, GREEDY)
    assert list(again) == whole
    assert again.usage.cached_tokens == 39


def test_cancelling_from_another_thread_ends_it(engine):
    cancel = threading.Event()
    generation = engine.generate(PROMPT, SamplingParams(400, temperature=1.0), cancel)
    next(generation)
    canceller = threading.Thread(target=cancel.set)
    canceller.start()
    canceller.join()
    assert len(list(generation)) == 0
    assert generation.finish_reason == "cancelled"


def test_an_answer_that_is_closed_early_leaves_the_cache_whole(engine, tiny_bundle):
    expected = fresh(tiny_bundle(), params=LIVELY)
    for taken in (1, 5, 29):
        generation = engine.generate(PROMPT, GREEDY)
        list(islice(generation, taken))
        generation.close()
        assert generation.finish_reason == "cancelled"
        assert list(engine.generate(PROMPT, LIVELY)) == expected


def test_a_generation_that_is_dropped_gives_the_engine_back(engine):
    next(engine.generate(PROMPT, GREEDY))
    assert len(list(engine.generate(PROMPT, GREEDY))) == 30


def test_threads_take_turns(engine, tiny_bundle):
    prompts = [PROMPT, PROMPT[:20], PROMPT[::-1], PROMPT[5:]]
    expected = [fresh(tiny_bundle(), prompt, LIVELY) for prompt in prompts]
    answers: list[list[int]] = [[] for _ in prompts]

    def ask(number: int) -> None:
        for _ in range(3):
            answers[number] = list(engine.generate(prompts[number], LIVELY))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == expected


def test_a_thread_may_have_several_under_way(engine, tiny_bundle):
    prompts = [PROMPT, PROMPT[:20], PROMPT[::-1], PROMPT[5:], PROMPT[3:]]
    generations = [engine.generate(prompt, GREEDY) for prompt in prompts]
    interleaved = list(zip(*generations, strict=True))
    assert [list(answer) for answer in zip(*interleaved, strict=True)] == [
        fresh(tiny_bundle(), prompt) for prompt in prompts
    ]


def test_the_context_may_be_filled_to_the_last_token_and_no_further(engine):
    capacity = engine.capacity
    assert capacity == 512
    assert len(list(engine.generate(PROMPT, SamplingParams(capacity - 40)))) == capacity - 40
    long = [20] * (capacity - 1)
    assert len(list(engine.generate(long, SamplingParams(1)))) == 1
    assert engine.score([20] * capacity).shape == (capacity, 270)
    with pytest.raises(ContextOverflowError, match="7 more than the 512"):
        engine.generate(long, SamplingParams(8))
    with pytest.raises(ContextOverflowError, match="1 more than"):
        engine.score([20] * (capacity + 1))


def test_the_capacity_follows_from_the_budget(tiny_bundle):
    per_token = 2 * 2 * 2 * 16 * 4
    with Engine.load(tiny_bundle(), EngineSettings(kv_cache_bytes=100 * per_token + 1)) as engine:
        assert engine.capacity == 100
    with pytest.raises(CacheBudgetError):
        Engine.load(tiny_bundle(), EngineSettings(kv_cache_bytes=per_token - 1))


@pytest.mark.parametrize("cache", ["float", "int8"])
def test_a_bounded_window_says_what_the_full_length_variant_says(tiny_bundle, cache):
    """Of 1,699 tokens 500 can be taken back, but then no 400 more, for the rows before them are gone."""
    shape = {"sliding_window": 32, "max_position_embeddings": 2048}
    ids = np.random.default_rng(3).integers(14, 270, 1600)
    prompts, answers = (ids, ids[:1200], np.append(ids[:800], 20)), []
    for kind, cached in (("bounded", [0, 1199, 0]), ("full", [0, 1199, 800])):
        settings = EngineSettings(threads=1, sequences=1)
        with Engine.load(tiny_bundle(shape, window_cache=kind, cache=cache), settings) as engine:
            generations = [engine.generate(prompt, SamplingParams(max_tokens=100)) for prompt in prompts]
            answers.append([list(generation) for generation in generations])
        assert [generation.usage.cached_tokens for generation in generations] == cached
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "prompt",
    [
        [],
        [-1],
        [270],
        [20, 2**40],
        [2**70],
        [[20, 21]],
        [[20], [21, 22]],
        [20.5],
        ["20"],
        [None],
        [True],
        20,
        b"20",
        "20",
    ],
    ids=str,
)
def test_a_prompt_that_is_none_is_refused(engine, prompt):
    with pytest.raises(PromptError):
        engine.generate(prompt, GREEDY)
    with pytest.raises(PromptError):
        engine.score(prompt)


def test_a_prompt_is_the_callers_who_may_change_it_while_it_waits(engine):
    expected = list(engine.generate(PROMPT, GREEDY))
    ids = np.array(PROMPT, np.int64)
    generation = engine.generate(ids, GREEDY)
    ids[:] = 2**40
    assert list(generation) == expected


def test_a_closed_engine_says_so(engine):
    engine.close()
    with pytest.raises(EngineClosedError):
        engine.generate(PROMPT, GREEDY)
    engine.close()


@pytest.mark.parametrize("bits", [32, 8])
def test_stories_are_told_as_ever(stories, export_bundle, bits):
    from tokenizers import Tokenizer

    with Engine.load(export_bundle(stories, bits=bits), SETTINGS) as engine:
        ids = list(engine.generate([1], SamplingParams(64)))
    told = Tokenizer.from_file(str(stories / "tokenizer.json")).decode(ids)
    assert told.strip().startswith(ONCE_UPON_A_TIME)


def test_stories_in_float32_are_the_reference_s_token_for_token(stories, export_bundle):
    from edge_assistant_export.checkpoint import Checkpoint
    from edge_assistant_export.reference import forward

    with Engine.load(export_bundle(stories, bits=32), SETTINGS) as engine:
        ids = [1, *engine.generate([1], SamplingParams(200))]
    with Checkpoint.open(stories) as checkpoint:
        best = forward(checkpoint, np.array(ids)).argmax(axis=1)
    assert list(best[:-1]) == ids[1:]
