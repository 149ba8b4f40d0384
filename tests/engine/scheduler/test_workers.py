"""The engine's own thread: there is one where there is work, and none else."""

from __future__ import annotations

import threading

import pytest
from scheduling import GREEDY, PROMPTS, SECONDS, fresh


def test_no_thread_is_left_when_there_is_nothing_to_do(engine_of):
    engine = engine_of(sequences=2)
    list(engine.generate(PROMPTS[0], GREEDY))
    scheduler = engine._scheduler
    engine.close()
    assert scheduler._worker is None
    assert "engine" not in {thread.name for thread in threading.enumerate()}


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
