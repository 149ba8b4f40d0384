"""A fault is told to whom it hits; nobody waits for ever."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest
from scheduling import BATCH, GREEDY, PROMPTS, SECONDS, VOICE, fresh

from edge_assistant.engine import SamplingParams
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.sampling import Sampler
from edge_assistant.engine.session import Session, Together
from edge_assistant.engine.speculate import Speculator
from edge_assistant.engine.steps import Steps
from edge_assistant.engine.write import Writer


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


def test_one_whose_rows_cannot_be_kept_is_told_and_the_one_it_makes_way_for_answers(
    engine_of, tiny_bundle, machine, monkeypatch
):
    expected = fresh(tiny_bundle(), PROMPTS[1])
    engine = engine_of()
    machine.hold()
    job, other = (engine.generate(prompt, GREEDY, claim=BATCH) for prompt in (PROMPTS[0], PROMPTS[3]))
    machine.held()
    monkeypatch.setattr(KvCache, "copy_rows", _no_memory)
    turn = engine.generate(PROMPTS[1], GREEDY, claim=VOICE)
    machine.let_go()
    assert list(turn) == expected
    with pytest.raises(MemoryError):
        ended(job)
    assert len(ended(other)) == 30
    counts = engine.metrics().by_priority["batch"]
    assert (counts.failed, counts.finished, counts.evicted) == (1, 1, 0)


def test_a_fault_while_an_answer_is_remembered_leaves_nobody_waiting(engine_of, machine, monkeypatch):
    engine = engine_of(sequences=2)
    machine.hold()
    generations = [engine.generate(prompt, GREEDY) for prompt in PROMPTS]
    machine.held()
    monkeypatch.setattr(Speculator, "remember", _no_memory)
    machine.let_go()
    for generation in generations:
        with suppress(MemoryError):
            ended(generation)
    monkeypatch.undo()
    assert len(ended(engine.generate(PROMPTS[0], GREEDY))) == 30


def ended(generation):
    """Return an answer; where it would be waited for in vain, this fails."""
    got: list[object] = []

    def fetch() -> None:
        try:
            got.append(list(generation))
        except MemoryError as error:
            got.append(error)

    fetching = threading.Thread(target=fetch, daemon=True)
    fetching.start()
    fetching.join(SECONDS)
    assert not fetching.is_alive()
    if isinstance(got[0], MemoryError):
        raise got[0]
    return got[0]


def _no_memory(*_):
    raise MemoryError
