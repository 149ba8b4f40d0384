"""Who is next of those that wait, how many may, and who is refused."""

from __future__ import annotations

import threading

import pytest
from scheduling import BATCH, GREEDY, PROMPTS, VOICE

from edge_assistant.engine import Claim, SamplingParams
from edge_assistant.errors import EngineBusyError


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


def test_one_for_whom_a_slot_is_free_takes_no_place(engine_of, machine):
    """While a step runs nobody is given a slot, however many are free."""
    engine = engine_of(sequences=3, queue=1)
    machine.hold()
    accepted = [engine.generate(PROMPTS[0], GREEDY)]
    machine.held()
    accepted += [engine.generate(prompt, GREEDY) for prompt in PROMPTS[1:]]
    with pytest.raises(EngineBusyError, match="1 requests are waiting"):
        engine.generate(PROMPTS[0], GREEDY)
    machine.let_go()
    assert [len(list(generation)) for generation in accepted] == [30] * 4
