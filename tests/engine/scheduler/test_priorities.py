"""Who goes first, who gives way, and what giving way costs."""

from __future__ import annotations

from itertools import pairwise

import pytest
from scheduling import BATCH, GREEDY, IDS, LIVELY, PROMPTS, VOICE, fresh

from edge_assistant.engine import Claim
from edge_assistant.engine.speculate import Pace
from edge_assistant.errors import PriorityError


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


def test_a_priority_that_is_none_is_refused_before_anybody_waits():
    with pytest.raises(PriorityError, match="'urgent' is none: there are voice, interactive, batch"):
        Claim(priority="urgent")


def test_a_caller_who_cannot_be_looked_up_is_refused_before_anybody_waits():
    with pytest.raises(TypeError):
        Claim(caller=["a"])
