"""What has not begun in time is given up; what has is finished."""

from __future__ import annotations

import pytest
from scheduling import GREEDY, PROMPTS, with_clock

from edge_assistant.engine import Claim
from edge_assistant.errors import DeadlineError


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
