"""A refresh: what an eviction has moved becomes a fresh prefill's, and at no moment is anything less than it was.

Two layers, so that what was moved is not what a fresh prefill gives. Tolerances are those of test_evict.py.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine, Keep, SamplingParams
from edge_assistant.engine.evict import key_scales
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.session import Session

SECONDS = 20
SETTINGS = EngineSettings(threads=1, prefill_chunk=16, cache_reuse=8, sequences=1, guesses=0, refresh_when_idle=True)
OFF = SETTINGS.model_copy(update={"refresh_when_idle": False})
IDS = np.random.default_rng(1).integers(14, 270, 300)
GREEDY = SamplingParams(max_tokens=20)
FIRST = IDS[:200]
SECOND = np.r_[IDS[:30], IDS[90:200], IDS[210:230]]
"""Lacks 60 tokens of the first; its last 20 are said for once."""
COMES_AGAIN = 140
THIRD = np.r_[SECOND[:COMES_AGAIN], IDS[240:250]]
STEPS = -(-(COMES_AGAIN - 30) // 16)
SHAPES = {
    "grouped": {},
    "not shared": {"num_key_value_heads": 4},
    "heads the kernel cannot rotate": {"head_dim": 24},
    "window of full length": {"sliding_window": 16},
    "experts": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


def session_of(bundle, capacity: int = 320) -> Session:
    return Session(bundle, KvCache(bundle.manifest, capacity, key_scales=key_scales(bundle)), EngineSettings(threads=1))


def moved_session(bundle) -> Session:
    """Return a session from whose context of 200 tokens 60 were evicted, and 120 of what is left come again."""
    session = session_of(bundle)
    session.run(FIRST)
    session.cache.evict(30, 90)
    session.cache.comes_again = 120
    return session


def slot_of(engine: Engine):
    return engine._scheduler._slots.all[0]


def idle(engine: Engine) -> None:
    """Wait until the engine has nothing to do."""
    worker = engine._scheduler._worker
    if worker is not None:
        worker.join(SECONDS)
        assert not worker.is_alive()


def converse(engine: Engine, **more) -> None:
    """Ask twice, the second time without some of what was said; nothing is refreshed yet behind the first."""
    list(engine.generate(FIRST, GREEDY, keep=Keep(200), **more))
    answer = engine.generate(SECOND, GREEDY, keep=Keep(COMES_AGAIN), **more)
    list(answer)
    assert answer.usage.cached_tokens == 30 + 110


def fresh(bundle, prompt) -> list[int]:
    """Return what an engine answers that has read nothing else."""
    with Engine.load(bundle, OFF) as engine:
        return list(engine.generate(prompt, GREEDY))


class Steps:
    """The steps of refreshes; while `held`, each says that it is `here` and waits at the `gate`."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.held = False
        self.here, self.gate = threading.Semaphore(0), threading.Semaphore(0)

    @property
    def count(self) -> int:
        return len(self.sessions)


@pytest.fixture
def steps(monkeypatch):
    steps = Steps()
    run_again = Session.run_again

    def counted(session, most):
        steps.sessions.append(session)
        if steps.held:
            steps.here.release()
            assert steps.gate.acquire(timeout=SECONDS)
        run_again(session, most)

    monkeypatch.setattr(Session, "run_again", counted)
    return steps


# Rows


@pytest.mark.parametrize("cache", ["float", "int8"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_step_writes_its_own_rows_and_no_other(tiny_bundle, shape, cache):
    session = moved_session(tiny_bundle(shape, window_cache="full", cache=cache))
    held, context = session.cache, session.cache.context.copy()
    exact = held.exact
    while held.moved:
        before = held.copy_rows(0, held.capacity)
        session.run_again(16)
        after, read = held.copy_rows(0, held.capacity), slice(exact, min(exact + 16, 120))
        assert (held.length, held.exact, held.comes_again) == (140, read.stop, 120)
        np.testing.assert_array_equal(held.context, context)
        changed = (before != after).any(axis=(0, 1, 2, 4))
        assert changed[read].any()
        changed[read] = False
        assert not changed.any()
        exact = read.stop


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_afterwards_rows_and_logits_are_those_of_a_fresh_prefill_and_were_not_before(tiny_bundle, shape):
    bundle = tiny_bundle(shape, window_cache="full")
    session, plain = moved_session(bundle), session_of(bundle)
    plain.run(session.cache.context[:120])
    rows = plain.cache.copy_rows(0, 120)
    assert np.abs(session.cache.copy_rows(0, 120) - rows).max() > 0.1
    while session.cache.moved:
        session.run_again(16)
    np.testing.assert_allclose(session.cache.copy_rows(0, 120), rows, atol=1e-4)
    session.cache.rewind(120)
    np.testing.assert_allclose(session.run(IDS[240:250]), plain.run(IDS[240:250]), atol=1e-4)


def test_an_int8_cache_is_refreshed_as_near_as_int8_is(tiny_bundle):
    bundle = tiny_bundle(cache="int8")
    session, plain = moved_session(bundle), session_of(bundle)
    plain.run(session.cache.context[:120])
    while session.cache.moved:
        session.run_again(16)
    session.cache.rewind(120)
    np.testing.assert_allclose(session.run(IDS[240:250]), plain.run(IDS[240:250]), atol=0.3)


operations = st.one_of(
    st.tuples(st.just("read"), st.integers(1, 40), st.just(0)),
    st.tuples(st.just("evict"), st.integers(0, 100), st.integers(0, 40)),
    st.tuples(st.just("rewind"), st.integers(0, 200), st.just(0)),
    st.tuples(st.just("make room"), st.integers(1, 128), st.just(0)),
    st.tuples(st.just("again"), st.integers(1, 40), st.integers(0, 128)),
)


@given(st.lists(operations, max_size=15))
def test_what_counts_as_exact_is_what_a_fresh_prefill_gives_whatever_was_done(tiny_bundle, done):
    bundle = tiny_bundle()
    session, random = session_of(bundle, 128), np.random.default_rng(len(done))
    cache = session.cache
    for kind, one, other in done:
        if kind == "read":
            cache.make_room(one)
            session.run(random.integers(14, 270, one))
        elif kind == "evict":
            cache.evict(min(one, cache.length), one + other)
        elif kind == "rewind":
            cache.rewind(one)
        elif kind == "make room":
            cache.make_room(one)
        else:
            cache.comes_again, length, exact = other, cache.length, cache.exact
            moved = cache.moved
            if moved:
                session.run_again(one)
            assert (cache.length, cache.moved) == (length, max(0, moved - one))
            assert cache.exact >= exact
    if cache.exact:
        plain = session_of(bundle, 128)
        plain.run(cache.context[: cache.exact])
        np.testing.assert_allclose(
            cache.copy_rows(0, cache.exact), plain.cache.copy_rows(0, cache.exact), atol=1e-4, rtol=1e-4
        )


# While nobody asks


@pytest.mark.parametrize("settings", [SETTINGS, OFF], ids=["refreshed", "not"])
def test_the_next_turn_is_answered_as_by_a_fresh_engine_only_behind_a_refresh(tiny_bundle, settings):
    bundle, plain = tiny_bundle(), session_of(tiny_bundle())
    with Engine.load(bundle, settings) as engine:
        converse(engine)
        idle(engine)
        done = int(settings is SETTINGS)
        assert (engine.metrics().refreshes, engine.metrics().refreshes_interrupted) == (done, 0)
        assert slot_of(engine).cache.length == len(SECOND) + 19
        third = engine.generate(THIRD, SamplingParams(1))
        next(third)
        assert third.usage.cached_tokens == COMES_AGAIN
        off = np.abs(slot_of(engine).session._logits.reshape(-1) - plain.run(THIRD)).max()
        assert off < 1e-4 if done else off > 0.1


@pytest.mark.parametrize(("chunk", "count"), [(16, STEPS), (256, 2)])
def test_nothing_is_read_anew_that_is_exact_or_does_not_come_again(tiny_bundle, steps, chunk, count):
    """Of 110 tokens that do, no step reads more than 64."""
    with Engine.load(tiny_bundle(), SETTINGS.model_copy(update={"prefill_chunk": chunk})) as engine:
        list(engine.generate(FIRST, GREEDY, keep=Keep(200)))
        idle(engine)
        assert steps.count == 0
        list(engine.generate(SECOND, GREEDY))
        idle(engine)
        assert steps.count == 0
        converse(engine)
        idle(engine)
        assert steps.count == count


def test_what_an_answer_slides_over_is_not_read_anew(tiny_bundle, steps):
    budget = tiny_bundle().manifest.cache_size.of(64)
    with Engine.load(tiny_bundle(), SETTINGS.model_copy(update={"kv_cache_bytes": budget})) as engine:
        params = SamplingParams(max_tokens=100, overflow="slide")
        assert len(list(engine.generate(IDS[:60], params, keep=Keep(50)))) == 100
        idle(engine)
        assert steps.count == 0


def test_the_prefixes_keep_a_refreshed_context_for_when_another_has_had_its_slot(tiny_bundle):
    bundle = tiny_bundle()
    with Engine.load(bundle, SETTINGS) as engine:
        converse(engine)
        idle(engine)
        list(engine.generate(IDS[250:300], GREEDY))
        answer = engine.generate(THIRD, GREEDY)
        assert list(answer) == fresh(bundle, THIRD)
        assert answer.usage.cached_tokens == COMES_AGAIN


def test_with_several_slots_the_one_used_last_goes_first_and_each_has_its_turn(tiny_bundle, steps):
    bundle = tiny_bundle()
    with Engine.load(bundle, SETTINGS.model_copy(update={"sequences": 2, "prefix_bytes": 0})) as engine:
        talks = IDS, np.flip(IDS)
        for ids in talks:
            list(engine.generate(ids[:200], GREEDY, keep=Keep(200)))
        steps.held = True
        seconds = [np.r_[ids[:30], ids[90:200], ids[210:230]] for ids in talks]
        list(engine.generate(seconds[0], GREEDY, keep=Keep(COMES_AGAIN)))
        assert steps.here.acquire(timeout=SECONDS)
        turn = engine.generate(seconds[1], GREEDY, keep=Keep(COMES_AGAIN))
        steps.held = False
        steps.gate.release()
        list(turn)
        idle(engine)
        one, other = steps.sessions[:2]
        assert one is not other
        assert steps.sessions == [one, *[other] * STEPS, *[one] * (STEPS - 1)]
        assert (engine.metrics().refreshes, engine.metrics().refreshes_interrupted) == (2, 1)
        for ids in talks:
            prompt = np.r_[ids[:30], ids[90:200], ids[240:250]]
            answer = engine.generate(prompt, GREEDY)
            assert list(answer) == fresh(bundle, prompt)
            assert answer.usage.cached_tokens == COMES_AGAIN


def test_an_adapter_s_rows_are_read_anew_with_the_adapter(tiny_bundle, lora_file, tmp_path):
    bundle = tiny_bundle(lora_rank=4)
    path = lora_file(tmp_path / "tuned.npz", bundle)
    with Engine.load(bundle, SETTINGS) as engine, Engine.load(bundle, OFF) as plain:
        adapter, other = engine.load_adapter(path), plain.load_adapter(path)
        converse(engine, adapter=adapter)
        idle(engine)
        list(engine.generate(IDS[250:300], GREEDY))
        answer = engine.generate(THIRD, GREEDY, adapter=adapter)
        assert list(answer) == list(plain.generate(THIRD, GREEDY, adapter=other))
        assert answer.usage.cached_tokens == COMES_AGAIN
        assert engine.generate(THIRD, GREEDY).usage.cached_tokens == 0


# When somebody does


@pytest.mark.parametrize("done", range(STEPS))
def test_a_request_waits_for_one_step_and_finds_all_that_there_was(tiny_bundle, steps, done):
    """It comes while step number `done` is held; the rest is read when it has been answered."""
    bundle = tiny_bundle()
    with Engine.load(bundle, SETTINGS) as engine:
        steps.held = True
        converse(engine)
        for _ in range(done):
            assert steps.here.acquire(timeout=SECONDS)
            steps.gate.release()
        assert steps.here.acquire(timeout=SECONDS)
        again = engine.generate(SECOND, SamplingParams(1), keep=Keep(COMES_AGAIN))
        steps.gate.release()
        next(again)
        assert again.usage.cached_tokens == len(SECOND) - 1
        whole = done + 1 == STEPS
        if not whole:
            assert steps.here.acquire(timeout=SECONDS)
        assert steps.count == done + 1 + (not whole)
        metrics = engine.metrics()
        assert (metrics.refreshes, metrics.refreshes_interrupted) == (int(whole), int(not whole))
        steps.held = False
        steps.gate.release()
        idle(engine)
        assert (engine.metrics().refreshes, engine.metrics().refreshes_interrupted) == (1, int(not whole))
        assert steps.count == STEPS
        assert list(engine.generate(THIRD, GREEDY)) == fresh(bundle, THIRD)


def test_closing_does_not_wait_for_the_end_of_a_refresh(tiny_bundle, steps):
    engine = Engine.load(tiny_bundle(), SETTINGS)
    steps.held = True
    converse(engine)
    assert steps.here.acquire(timeout=SECONDS)
    scheduler = engine._scheduler
    closing = threading.Thread(target=engine.close)
    closing.start()
    while not scheduler._closed:
        closing.join(0.001)
    steps.gate.release()
    closing.join(SECONDS)
    assert not closing.is_alive()
    assert scheduler._worker is None
    assert steps.count == 1


def test_a_fault_in_a_refresh_costs_its_context_and_no_answer(tiny_bundle, monkeypatch, caplog):
    def fail(session, most):
        with session.cache.step_again(most):
            raise ZeroDivisionError

    bundle = tiny_bundle()
    with Engine.load(bundle, SETTINGS.model_copy(update={"prefix_bytes": 0})) as engine:
        with monkeypatch.context() as broken:
            broken.setattr(Session, "run_again", fail)
            converse(engine)
            idle(engine)
        assert "not read anew" in caplog.text
        assert slot_of(engine).cache.length == 0
        assert engine.metrics().refreshes == 0
        assert list(engine.generate(THIRD, GREEDY)) == fresh(bundle, THIRD)
