"""The scheduler: who is next, who gives way, and that nobody's answer is another for it.

`machine` stands between the scheduler and the model: it notes every run, and where it is held, lets them through one by
one. So what is submitted while a run is held is known to come before the next.
"""

from __future__ import annotations

import gc
import threading
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from random import Random

import numpy as np
import pytest

from edge_assistant.config import EngineSettings
from edge_assistant.engine import Claim, Engine, Keep, SamplingParams
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.sampling import Sampler
from edge_assistant.engine.session import Session, Together
from edge_assistant.engine.speculate import Pace
from edge_assistant.engine.steps import Steps
from edge_assistant.engine.write import Writer
from edge_assistant.errors import DeadlineError, EngineBusyError, EngineClosedError, PriorityError

IDS = np.random.default_rng(2).integers(14, 270, 200)
PROMPTS = [list(IDS[:40]), list(IDS[40:60]), list(IDS[60:145]), list(IDS[150:153])]
"""No two of them begin alike."""
GREEDY = SamplingParams(max_tokens=30)
LIVELY = SamplingParams(max_tokens=30, temperature=1.2, top_k=50, repetition_penalty=1.1)
VOICE, BATCH = Claim(priority="voice"), Claim(priority="batch")
SECONDS = 20

pytestmark = pytest.mark.usefixtures("one_chance")


class Machine:
    """Runs of the model, noted: the tokens that each sequence read, [n] of one or one each of several."""

    def __init__(self) -> None:
        self.runs: list[list[list[int]]] = []
        self.caches: list[KvCache | None] = []
        """Where a run was of one sequence alone."""
        self._held = False
        self._here, self._go = threading.Semaphore(0), threading.Semaphore(0)

    def passes(self, tokens: list[list[int]], cache: KvCache | None = None) -> None:
        """Called by a run: note it, and wait while held."""
        self.runs.append(tokens)
        self.caches.append(cache)
        if self._held:
            self._here.release()
            assert self._go.acquire(timeout=SECONDS)

    def hold(self) -> None:
        """Hold the next run."""
        self._held = True

    def held(self) -> None:
        """Wait until a run is held."""
        assert self._here.acquire(timeout=SECONDS)

    def step(self) -> None:
        """Let the run go that is held, and wait for the next."""
        self._go.release()
        self.held()

    def let_go(self) -> None:
        """Hold no more."""
        self._held = False
        self._go.release()

    def rows(self) -> int:
        """Return how many tokens were run."""
        return sum(len(ids) for run in self.runs for ids in run)

    def reads(self) -> list[int]:
        """Return the runs that read the beginning of one of the prompts, by the prompt's number, in their order."""
        starts = [prompt[:16] for prompt in PROMPTS]
        return [starts.index(run[0]) for run in self.runs if run[0] in starts]


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    run, run_rows, together = Session.run, Session.run_rows, Together.run

    def one(session, ids):
        machine.passes([list(ids)], session.cache)
        return run(session, ids)

    def rows(session, ids, count):
        machine.passes([list(ids)], session.cache)
        return run_rows(session, ids, count)

    def several(batch, tokens, adapter):
        machine.passes([[token] for token in tokens.values()])
        return together(batch, tokens, adapter)

    monkeypatch.setattr(Session, "run", one)
    monkeypatch.setattr(Session, "run_rows", rows)
    monkeypatch.setattr(Together, "run", several)
    return machine


@pytest.fixture
def batching(monkeypatch):
    """Let whoever can step together do so, whatever it costs."""
    monkeypatch.setattr(Pace, "together", lambda self, more: True)


@pytest.fixture
def engine_of(tiny_bundle):
    """Return a function that loads an engine without guesses; keywords are settings."""
    engines = []

    def load(bundle=None, **settings) -> Engine:
        engines.append(Engine.load(bundle or tiny_bundle(), settings_of(**settings)))
        return engines[-1]

    yield load
    for engine in engines:
        engine.close()


def settings_of(**settings) -> EngineSettings:
    return EngineSettings(**{"threads": 1, "prefill_chunk": 16, "guesses": 0, "sequences": 1} | settings)


def fresh(bundle, prompt, params=GREEDY) -> list[int]:
    """Return what an engine of its own answers."""
    with Engine.load(bundle, settings_of()) as engine:
        return list(engine.generate(prompt, params))


class Clock:
    """A clock that is put forward by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def answers_of(engine: Engine, machine: Machine, prompts: list[list[int]], params: SamplingParams) -> list[list[int]]:
    """Return the answers to prompts that were all asked before the first was computed."""
    machine.hold()
    generations = [engine.generate(prompt, params) for prompt in prompts]
    machine.held()
    machine.let_go()
    return [list(generation) for generation in generations]


def with_clock(engine: Engine) -> Clock:
    engine._scheduler._clock = clock = Clock()
    return clock


# Together


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


# Priorities


def test_a_voice_turn_stops_a_batch_job_which_goes_on_without_reading_again(engine_of, tiny_bundle, machine):
    engine = engine_of(sequences=2)
    machine.hold()
    job = engine.generate(PROMPTS[0], GREEDY, claim=BATCH)
    machine.held()
    for _ in range(8):
        machine.step()
    before = len(machine.runs)
    turn = engine.generate(PROMPTS[1], GREEDY, claim=VOICE)
    machine.let_go()
    answers = [list(turn), list(job)]
    # The turn is read in two chunks, and each of its tokens but the last is run; then the job goes on.
    voice = [1 if number < 31 else 0 for number in range(len(machine.runs) - before)]
    job_s, turn_s = machine.caches[0], machine.caches[before]
    assert job_s is not turn_s
    assert [int(cache is turn_s) for cache in machine.caches[before:]] == voice
    # Whatever was read, was read once.
    assert machine.rows() == len(PROMPTS[0]) + 29 + len(PROMPTS[1]) + 29
    assert answers == [fresh(tiny_bundle(), PROMPTS[1]), fresh(tiny_bundle(), PROMPTS[0])]


@pytest.mark.parametrize(("claim", "sizes"), [(BATCH, [64, 64, 22]), (Claim(), [100, 50]), (VOICE, [100, 50])], ids=str)
def test_a_batch_job_is_read_in_chunks_that_an_urgent_request_can_wait_for(
    engine_of, tiny_bundle, machine, claim, sizes
):
    engine = engine_of(prefill_chunk=100)
    assert list(engine.generate(IDS[:150], GREEDY, claim=claim)) == fresh(tiny_bundle(), IDS[:150])
    assert [len(run[0]) for run in machine.runs[: len(sizes) + 1]] == [*sizes, 1]


def test_a_score_is_read_in_such_chunks_too_and_in_smaller_ones_where_all_are(engine_of, machine):
    for chunk, sizes in ((100, [64, 36]), (40, [40, 40, 20])):
        machine.runs.clear()
        engine_of(prefill_chunk=chunk).score(IDS[:100])
        assert [len(run[0]) for run in machine.runs] == sizes


def test_where_no_slot_is_free_the_least_urgent_gives_up_its_own_and_still_answers(engine_of, tiny_bundle, machine):
    engine = engine_of(sequences=1)
    machine.hold()
    job = engine.generate(PROMPTS[0], LIVELY, claim=BATCH)
    machine.held()
    for _ in range(8):
        machine.step()
    turn = engine.generate(PROMPTS[1], GREEDY, claim=VOICE)
    machine.let_go()
    assert list(turn) == fresh(tiny_bundle(), PROMPTS[1])
    assert list(job) == fresh(tiny_bundle(), PROMPTS[0], LIVELY)
    counts = engine.metrics().by_priority
    assert (counts["batch"].evicted, counts["voice"].evicted, counts["batch"].finished) == (1, 0, 1)


@pytest.mark.parametrize("steps", [1, 8])
@pytest.mark.parametrize("room", [0, 2**20])
def test_one_that_gave_up_its_slot_reads_again_only_what_the_prefixes_had_no_room_for(engine_of, machine, steps, room):
    engine = engine_of(sequences=1, prefix_bytes=room)
    machine.hold()
    job = engine.generate(PROMPTS[0], GREEDY, claim=BATCH)
    machine.held()
    for _ in range(steps):
        machine.step()
    turn = engine.generate(PROMPTS[1], GREEDY, claim=VOICE)
    done = machine.rows()
    machine.let_go()
    assert (len(list(turn)), len(list(job))) == (30, 30)
    once = len(PROMPTS[0]) + 29 + len(PROMPTS[1]) + 29
    assert machine.rows() == once + (0 if room else done)
    assert job.usage.cached_tokens == 0


def test_an_interactive_turn_does_not_evict_while_a_voice_turn_runs(engine_of, machine):
    """It could not take a step, so the job keeps its slot until it could."""
    engine = engine_of(sequences=2)
    machine.hold()
    job = engine.generate(PROMPTS[0], GREEDY, claim=BATCH)
    machine.held()
    voice = engine.generate(PROMPTS[1], GREEDY, claim=VOICE)
    machine.step()
    turn = engine.generate(PROMPTS[2], GREEDY)
    machine.step()
    assert engine.metrics().by_priority["batch"].evicted == 0
    machine.let_go()
    assert [len(list(generation)) for generation in (voice, turn, job)] == [30] * 3
    assert machine.reads() == [0, 1, 2]
    assert engine.metrics().by_priority["batch"].evicted == 0


def test_a_voice_turn_does_not_wait_for_the_end_of_a_round(engine_of, machine, monkeypatch):
    monkeypatch.setattr(Pace, "together", lambda self, more: False)
    engine = engine_of(sequences=3)
    machine.hold()
    jobs = [engine.generate(prompt, GREEDY, claim=BATCH) for prompt in (PROMPTS[0], PROMPTS[3])]
    machine.held()
    for _ in range(12):
        machine.step()
    if machine.caches[-1] is not machine.caches[0]:
        machine.step()
    before = len(machine.runs)
    turn = engine.generate(PROMPTS[1], GREEDY, claim=VOICE)
    machine.let_go()
    assert [len(list(generation)) for generation in (turn, *jobs)] == [30] * 3
    assert machine.runs[before] == [PROMPTS[1][:16]]


def test_one_that_was_interrupted_goes_on_before_another_begins(engine_of, machine):
    engine = engine_of(prefix_bytes=0)
    machine.hold()
    jobs = [engine.generate(PROMPTS[0], GREEDY, claim=Claim("a", "batch"))]
    machine.held()
    jobs.append(engine.generate(PROMPTS[2], GREEDY, claim=Claim("b", "batch")))
    turn = engine.generate(PROMPTS[1], GREEDY, claim=VOICE)
    machine.let_go()
    assert [len(list(generation)) for generation in (turn, *jobs)] == [30] * 3
    assert machine.reads() == [0, 1, 0, 2]


def test_the_most_urgent_goes_first_whoever_came_first(engine_of, machine):
    engine = engine_of()
    machine.hold()
    generations = [engine.generate(PROMPTS[0], GREEDY, claim=VOICE)]
    machine.held()
    claims = [BATCH, Claim(), VOICE]
    generations += [engine.generate(p, GREEDY, claim=claim) for p, claim in zip(PROMPTS[1:], claims, strict=True)]
    machine.let_go()
    assert [len(list(generation)) for generation in generations] == [30] * 4
    assert machine.reads() == [0, 3, 2, 1]


def test_reading_is_one_chunk_between_two_tokens_of_others(engine_of, machine):
    engine = engine_of(sequences=3)
    machine.hold()
    writing = engine.generate(PROMPTS[3], GREEDY)
    machine.held()
    machine.step()
    start = len(machine.runs)
    reading = [engine.generate(prompt, GREEDY) for prompt in (PROMPTS[2], PROMPTS[0])]
    machine.let_go()
    assert [len(list(generation)) for generation in (writing, *reading)] == [30] * 3
    lengths = [len(run[0]) for run in machine.runs[start : start + 12]]
    assert sum(length > 1 for length in lengths) >= 5
    assert not any(a > 1 and b > 1 for a, b in pairwise(lengths))


# Fairness and the queue


def test_of_callers_that_wait_the_one_served_least_recently_is_next(engine_of, machine):
    engine = engine_of()
    machine.hold()
    asked = [(0, "a"), (0, "a"), (0, "a"), (1, "b"), (2, "c"), (1, "b")]
    generations = [engine.generate(PROMPTS[n], SamplingParams(1), claim=Claim(caller)) for n, caller in asked]
    machine.held()
    machine.let_go()
    for generation in generations:
        list(generation)
    # A prompt that was read before is read again but for its last token, unless another came between.
    assert machine.reads() == [0, 1, 2, 0, 1, 0]


def test_more_than_may_wait_are_refused_and_told_when_to_ask_again(engine_of, machine):
    engine = engine_of(queue=2)
    list(engine.generate(PROMPTS[0], GREEDY))
    measured = engine.metrics().answer_s
    machine.hold()
    accepted = [engine.generate(PROMPTS[0], GREEDY)]
    machine.held()
    accepted += [engine.generate(prompt, GREEDY) for prompt in PROMPTS[1:3]]
    with pytest.raises(EngineBusyError, match="2 requests are waiting") as caught:
        engine.generate(PROMPTS[3], GREEDY)
    assert caught.value.retry_after_s == max(0.1, measured) > 0
    machine.let_go()
    assert [len(list(generation)) for generation in accepted] == [30] * 3
    assert len(list(engine.generate(PROMPTS[3], GREEDY))) == 30
    counts = engine.metrics().by_priority["interactive"]
    assert (counts.shed, counts.finished, counts.waiting, counts.running) == (1, 5, 0, 0)


def test_an_urgent_request_puts_out_the_last_of_the_least_urgent(engine_of, machine):
    engine = engine_of(queue=2)
    machine.hold()
    running = engine.generate(PROMPTS[0], GREEDY)
    machine.held()
    job, turn = engine.generate(PROMPTS[1], GREEDY, claim=BATCH), engine.generate(PROMPTS[2], GREEDY)
    voice = engine.generate(PROMPTS[3], GREEDY, claim=VOICE)
    with pytest.raises(EngineBusyError):
        next(job)
    with pytest.raises(EngineBusyError):
        engine.generate(PROMPTS[1], GREEDY, claim=BATCH)
    machine.let_go()
    assert [len(list(generation)) for generation in (voice, running, turn)] == [30] * 3
    assert 1 not in machine.reads()
    assert engine.metrics().by_priority["batch"].shed == 2


def test_places_of_those_who_gave_up_are_free(engine_of, machine):
    engine = engine_of(queue=1)
    machine.hold()
    running = engine.generate(PROMPTS[0], GREEDY)
    machine.held()
    for _ in range(3):
        engine.generate(PROMPTS[1], GREEDY).close()
        cancel = threading.Event()
        engine.generate(PROMPTS[1], GREEDY, cancel)
        cancel.set()
    last = engine.generate(PROMPTS[2], GREEDY)
    machine.let_go()
    assert [len(list(generation)) for generation in (running, last)] == [30] * 2
    assert machine.reads() == [0, 2]


# Deadlines


def test_a_request_whose_time_is_over_is_refused_before_anything_is_computed(engine_of, machine):
    engine = engine_of()
    clock = with_clock(engine)
    machine.hold()
    running = engine.generate(PROMPTS[0], GREEDY)
    machine.held()
    late = engine.generate(PROMPTS[1], GREEDY, claim=Claim(deadline_s=5))
    in_time = engine.generate(PROMPTS[2], GREEDY, claim=Claim(deadline_s=7))
    clock.now = 6
    machine.let_go()
    with pytest.raises(DeadlineError, match="5 s"):
        next(late)
    assert [len(list(generation)) for generation in (running, in_time)] == [30] * 2
    assert machine.reads() == [0, 2]
    counts = engine.metrics().by_priority["interactive"]
    assert (counts.late, counts.finished, counts.waited_s) == (1, 2, 6)


def test_what_has_begun_in_time_is_finished_and_what_still_reads_is_not(engine_of, machine):
    engine = engine_of(sequences=2)
    clock = with_clock(engine)
    machine.hold()
    begun = engine.generate(PROMPTS[3], GREEDY, claim=Claim(deadline_s=5))
    machine.held()
    machine.step()
    reading = engine.generate(PROMPTS[2], GREEDY, claim=Claim(deadline_s=5))
    machine.step()
    machine.step()
    clock.now = 6
    machine.let_go()
    assert len(list(begun)) == 30
    with pytest.raises(DeadlineError):
        next(reading)
    assert machine.rows() < len(PROMPTS[3]) + 29 + len(PROMPTS[2])


# Cancelling, dropping, failing, closing


@pytest.mark.parametrize("steps", [0, 2, 5])
def test_a_cancelled_answer_takes_no_further_step(engine_of, machine, steps):
    engine = engine_of()
    cancel = threading.Event()
    machine.hold()
    generation = engine.generate(PROMPTS[0], GREEDY, cancel)
    waiting = engine.generate(PROMPTS[1], GREEDY, cancel)
    machine.held()
    for _ in range(steps):
        machine.step()
    cancel.set()
    machine.let_go()
    assert list(generation) == list(waiting) == []
    engine.close()
    assert len(machine.runs) == steps + 1
    assert generation.finish_reason == waiting.finish_reason == "cancelled"


def test_one_of_several_that_step_together_can_be_cancelled(engine_of, tiny_bundle, machine, batching):
    engine = engine_of(sequences=3)
    cancel = threading.Event()
    machine.hold()
    kept, cancelled, other = (
        engine.generate(p, GREEDY, c) for p, c in zip(PROMPTS, (None, cancel, None), strict=False)
    )
    machine.held()
    while len(machine.runs[-1]) < 3:
        machine.step()
    cancel.set()
    machine.let_go()
    answers = [list(kept), list(other)]
    assert list(cancelled) == []
    assert sum(len(run) == 3 for run in machine.runs) == 1
    assert answers == [fresh(tiny_bundle(), PROMPTS[0]), fresh(tiny_bundle(), PROMPTS[2])]


def test_one_that_is_cancelled_before_its_step_in_a_round_does_not_take_it(engine_of, machine, monkeypatch):
    monkeypatch.setattr(Pace, "together", lambda self, more: False)
    engine = engine_of(sequences=2)
    cancel = threading.Event()
    machine.hold()
    kept, cancelled = engine.generate(PROMPTS[0], GREEDY), engine.generate(PROMPTS[3], GREEDY, cancel)
    machine.held()
    for _ in range(12):
        machine.step()
    if machine.caches[-1] is not machine.caches[0]:
        machine.step()
    before = len(machine.runs)
    cancel.set()
    machine.let_go()
    assert len(list(kept)) == 30
    assert list(cancelled) == []
    assert {id(cache) for cache in machine.caches[before:]} == {id(machine.caches[0])}


def test_one_that_is_not_fetched_keeps_nobody_waiting(engine_of, tiny_bundle):
    engine = engine_of()
    slow = engine.generate(PROMPTS[0], GREEDY)
    begun = list(islice(slow, 2))
    unread = engine.generate(PROMPTS[2], GREEDY)
    assert list(engine.generate(PROMPTS[1], GREEDY)) == fresh(tiny_bundle(), PROMPTS[1])
    assert begun + list(slow) == fresh(tiny_bundle(), PROMPTS[0])
    assert unread.usage.completion_tokens == 0


def test_one_that_nobody_holds_any_more_is_not_computed(engine_of, machine):
    engine = engine_of()
    machine.hold()
    running = engine.generate(PROMPTS[0], GREEDY)
    machine.held()
    engine.generate(PROMPTS[1], GREEDY)
    machine.step()
    del running
    gc.collect()
    machine.let_go()
    assert len(list(engine.generate(PROMPTS[2], GREEDY))) == 30
    assert machine.reads() == [0, 2]
    assert engine.metrics().by_priority["interactive"].cancelled == 2


def test_a_priority_that_is_none_is_refused_before_anybody_waits():
    with pytest.raises(PriorityError, match="'urgent' is none: there are voice, interactive, batch"):
        Claim(priority="urgent")


@pytest.mark.parametrize("at", ["the draw", "the run", "the plan", "the batch"])
def test_a_fault_in_one_is_told_to_whom_it_hits_and_to_nobody_else(
    engine_of, tiny_bundle, machine, monkeypatch, batching, at
):
    expected = [fresh(tiny_bundle(), prompt) for prompt in PROMPTS]
    engine = engine_of(sequences=4)
    sample, run, guess = Sampler.sample, Session.run, Writer.guess

    def faulty_sample(sampler, logits, position, allowed=None):
        if sampler._params.seed == 13 and position > len(PROMPTS[1]) + 3:
            raise ZeroDivisionError
        return sample(sampler, logits, position, allowed)

    def faulty_run(session, ids):
        if len(ids) > 1 and list(ids) == PROMPTS[1][16:]:
            raise ZeroDivisionError
        return run(session, ids)

    def faulty_guess(writer, cache, room, others):
        if writer._sampler._params.seed == 13:
            raise ZeroDivisionError
        return guess(writer, cache, room, others)

    def faulty_batch(together, tokens, adapter):
        raise ZeroDivisionError

    faults = {
        "the draw": (Sampler, "sample", faulty_sample),
        "the run": (Session, "run", faulty_run),
        "the plan": (Writer, "guess", faulty_guess),
        "the batch": (Together, "run", faulty_batch),
    }
    monkeypatch.setattr(*faults[at])
    params = [GREEDY, SamplingParams(max_tokens=30, seed=13), GREEDY, GREEDY]
    machine.hold()
    generations = [engine.generate(prompt, how) for prompt, how in zip(PROMPTS, params, strict=True)]
    machine.held()
    machine.let_go()
    if at == "the batch":
        with pytest.raises(ZeroDivisionError):
            list(generations[0])
    else:
        with pytest.raises(ZeroDivisionError):
            list(generations[1])
        assert [list(generations[n]) for n in (0, 2, 3)] == [expected[n] for n in (0, 2, 3)]
        assert engine.metrics().by_priority["interactive"].failed == 1
    for generation in generations:
        generation.close()
    monkeypatch.undo()
    assert [list(engine.generate(prompt, GREEDY)) for prompt in PROMPTS] == expected


def test_a_fault_of_the_scheduler_itself_leaves_nobody_waiting(engine_of, machine, monkeypatch):
    engine = engine_of()
    machine.hold()
    generations = [engine.generate(prompt, GREEDY) for prompt in PROMPTS]
    machine.held()
    with monkeypatch.context() as broken:
        broken.setattr(Steps, "plan", lambda self, turn: 1 // 0)
        machine.let_go()
        for generation in generations:
            with pytest.raises(ZeroDivisionError):
                list(generation)
    assert len(list(engine.generate(PROMPTS[0], GREEDY))) == 30


def test_closing_ends_what_runs_and_what_waits(engine_of, machine):
    engine = engine_of()
    machine.hold()
    generations = [engine.generate(prompt, GREEDY) for prompt in PROMPTS]
    machine.held()
    for _ in range(5):
        machine.step()
    scheduler = engine._scheduler
    closing = threading.Thread(target=engine.close)
    closing.start()
    while not scheduler._closed:
        closing.join(0.001)
    machine.let_go()
    closing.join(SECONDS)
    assert not closing.is_alive()
    assert len(machine.runs) == 6
    for generation in generations:
        with pytest.raises(EngineClosedError):
            list(generation)
    with pytest.raises(EngineClosedError):
        engine.generate(PROMPTS[0], GREEDY)
    with pytest.raises(EngineClosedError):
        engine.metrics()


def test_no_thread_is_left_when_there_is_nothing_to_do(engine_of):
    engine = engine_of(sequences=2)
    list(engine.generate(PROMPTS[0], GREEDY))
    scheduler = engine._scheduler
    engine.close()
    assert scheduler._worker is None
    assert "engine" not in {thread.name for thread in threading.enumerate()}


# Slots


def test_what_the_prefixes_keep_is_read_once_for_all_slots(engine_of, tiny_bundle, machine):
    engine = engine_of(sequences=2)
    first, second = PROMPTS[2], [*PROMPTS[2][:70], *PROMPTS[1]]
    machine.hold()
    busy = engine.generate(first, GREEDY, keep=Keep(70))
    machine.held()
    while len(machine.runs[-1][0]) > 1:
        machine.step()
    other = engine.generate(second, GREEDY)
    machine.let_go()
    answers = [list(busy), list(other)]
    assert (busy.usage.cached_tokens, other.usage.cached_tokens) == (0, 70)
    assert machine.rows() == len(first) + 29 + len(second) - 70 + 29
    assert answers == [fresh(tiny_bundle(), first), fresh(tiny_bundle(), second)]


def test_nothing_is_cut_out_of_what_an_interrupted_answer_has_left_behind(engine_of, machine):
    """The job said of none of its prompt that it comes again, only that it goes on itself."""
    engine = engine_of(sequences=1, cache_reuse=8)
    machine.hold()
    job = engine.generate(IDS[:120], GREEDY, claim=BATCH)
    machine.held()
    for _ in range(12):
        machine.step()
    turn = engine.generate(PROMPTS[3], GREEDY, claim=VOICE)
    machine.let_go()
    assert len(list(turn)) == 30
    like_it = engine.generate([*IDS[:30], *IDS[60:120], 20], GREEDY, claim=VOICE)
    assert (len(list(like_it)), len(list(job))) == (30, 30)
    assert like_it.usage.cached_tokens == 30


def test_conversations_that_go_on_keep_their_slots(engine_of):
    engine = engine_of(sequences=3)
    texts = [list(prompt) for prompt in PROMPTS[:3]]
    for turn in range(3):
        for text in texts:
            generation = engine.generate([*text, 20], SamplingParams(max_tokens=10))
            answer = list(generation)
            assert generation.usage.cached_tokens == (len(text) - 1 if turn else 0)
            text += [20, *answer]


def test_one_conversation_does_not_take_the_slots_of_others(engine_of):
    engine = engine_of(sequences=3)
    short, text = SamplingParams(max_tokens=5), list(PROMPTS[0])
    list(engine.generate(PROMPTS[1], short))
    for _ in range(4):
        text += list(engine.generate(text, short))
    other = engine.generate(PROMPTS[1], short)
    list(other)
    assert other.usage.cached_tokens == len(PROMPTS[1]) - 1


def test_all_slots_share_the_budget(tiny_bundle, engine_of):
    bundle = tiny_bundle()
    per_token = bundle.manifest.cache_size.per_token
    for sequences in (1, 2, 3):
        metrics = engine_of(sequences=sequences, kv_cache_bytes=301 * per_token).metrics()
        assert (metrics.sequences, metrics.capacity) == (sequences, 301 // sequences)
        assert metrics.cache_bytes == sequences * metrics.capacity * per_token
    for positions, expected in ((511, (1, 511)), (512, (1, 512)), (1024, (2, 512)), (9999, (4, 512))):
        metrics = engine_of(sequences=0, kv_cache_bytes=positions * per_token).metrics()
        assert (metrics.sequences, metrics.capacity) == expected


# All at once


def test_a_crowd_gets_the_answers_that_each_would_have_had_alone(engine_of, tiny_bundle):
    """Callers of all priorities, more than there are slots, some of whom give up half-way."""
    bundle = tiny_bundle()
    expected = [fresh(bundle, prompt, LIVELY) for prompt in PROMPTS]
    engine = engine_of(bundle, sequences=3, guesses=4, queue=64)
    wrong: list[object] = []
    counted: Counter[str] = Counter()

    def ask(number: int) -> None:
        random = Random(number)
        for _ in range(8):
            chosen, most = random.randrange(4), random.choice((3, 30, 30))
            claim = Claim(str(number % 3), random.choice(("voice", "interactive", "batch")))
            generation = engine.generate(PROMPTS[chosen], LIVELY, claim=claim)
            answer = list(islice(generation, most))
            generation.close()
            if answer != expected[chosen][:most]:
                wrong.append((chosen, answer))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    for counts in engine.metrics().by_priority.values():
        counted.update(started=counts.started, ended=counts.finished + counts.cancelled, failed=counts.failed)
    assert counted["failed"] == 0
    assert counted["started"] == 48


def test_a_request_for_which_no_thread_could_start_keeps_nobody_from_the_next(engine_of, tiny_bundle, monkeypatch):
    """The system may have no room for a thread; later it has."""
    engine = engine_of()
    with monkeypatch.context() as crowded:
        crowded.setattr(threading.Thread, "start", _no_more_threads)
        with pytest.raises(RuntimeError, match="new thread"):
            engine.generate(PROMPTS[0], GREEDY)
    assert engine.metrics().by_priority["interactive"].waiting == 0
    answer: list[int] = []
    asking = threading.Thread(target=lambda: answer.extend(engine.generate(PROMPTS[1], GREEDY)), daemon=True)
    asking.start()
    asking.join(SECONDS)
    assert answer == fresh(tiny_bundle(), PROMPTS[1])


def test_ctrl_c_while_the_worker_starts_leaves_one_worker(engine_of, tiny_bundle, machine, monkeypatch):
    """The thread whose start was interrupted may never come up, or late, when another does the work."""
    engine, late = engine_of(), []

    def interrupted(thread):
        late.append(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as pressed:
        pressed.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.generate(PROMPTS[0], GREEDY)
    machine.hold()
    generation = engine.generate(PROMPTS[1], GREEDY)
    machine.held()
    late[0].start()
    late[0].join(SECONDS)
    assert not late[0].is_alive()
    machine.let_go()
    assert list(generation) == fresh(tiny_bundle(), PROMPTS[1])


def test_an_engine_whose_only_thread_never_started_can_be_closed(engine_of, monkeypatch):
    engine = engine_of()
    with monkeypatch.context() as crowded:
        crowded.setattr(threading.Thread, "start", _no_more_threads)
        with pytest.raises(RuntimeError, match="new thread"):
            engine.generate(PROMPTS[0], GREEDY)
    engine.close()


def _no_more_threads(thread):
    raise RuntimeError("can't start new thread")
