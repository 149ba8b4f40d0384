"""Cancelling, dropping, closing: what has ended takes no further step, and nobody else waits for it."""

from __future__ import annotations

import gc
import threading
from itertools import islice

import pytest
from scheduling import GREEDY, PROMPTS, SECONDS, fresh

from edge_assistant.engine.speculate import Pace
from edge_assistant.errors import EngineClosedError


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


@pytest.mark.parametrize("closed", [False, True])
def test_threads_that_share_an_answer_all_hear_of_its_end(engine_of, tiny_bundle, machine, closed):
    engine, got, errors = engine_of(), [], []
    machine.hold()
    generation = engine.generate(PROMPTS[0], GREEDY)
    machine.held()

    def fetch() -> None:
        try:
            got.extend(generation)
        except EngineClosedError as error:
            errors.append(error)

    fetching = [threading.Thread(target=fetch, daemon=True) for _ in range(3)]
    for thread in fetching:
        thread.start()
    if closed:
        closing = threading.Thread(target=engine.close)
        closing.start()
        while not engine._open_scheduler or not engine._open_scheduler._closed:
            closing.join(0.001)
    machine.let_go()
    for thread in fetching:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in fetching)
    assert errors if closed else sorted(got) == sorted(fresh(tiny_bundle(), PROMPTS[0]))
