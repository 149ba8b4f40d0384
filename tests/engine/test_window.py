"""Bounded windows: however a context is read and however often it goes back, the logits are those of a fresh cache.

The slack is four positions here where it is hundreds on a board, so that a short context drops often. The full-length
variant of the same checkpoint, which forgets nothing, is what a fresh cache would say. Logits spread over some ±15; two
orders of summing are 1e-5 apart.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.bundle import cache_size
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine, SamplingParams
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.session import Session
from edge_assistant.engine.speculate import Pace
from edge_assistant.errors import RewindError

SLACK = 4
LENGTH = 120
TOLERANCE = 1e-4
IDS = np.random.default_rng(1).integers(14, 270, LENGTH)
SETTINGS = EngineSettings(threads=1, prefill_chunk=8)
WINDOW = {"sliding_window": 8}
SHAPES = {
    "in all layers": WINDOW,
    "of an odd size": {"sliding_window": 7},
    "shorter than the slack": {"sliding_window": 3},
    "of one": {"sliding_window": 1},
    "in one layer of two": WINDOW | {"layer_types": ["full_attention", "sliding_attention"]},
    "heads the kernel cannot rotate": WINDOW | {"head_dim": 24},
}


@pytest.fixture(scope="module", autouse=True)
def short_slack():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_size, "REWINDABLE", SLACK)
        yield


def session_of(bundle, capacity=LENGTH) -> Session:
    return Session(bundle, KvCache(bundle.manifest, capacity), SETTINGS)


def rows(session: Session, ids: np.ndarray) -> np.ndarray:
    return session.run_rows(ids, len(ids))


def read(session: Session, ids: np.ndarray, chunk: int) -> np.ndarray:
    """Read ids in chunks and return the logits [n, vocab] after each."""
    return np.concatenate([rows(session, ids[start : start + chunk]) for start in range(0, len(ids), chunk)])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_context_of_many_windows_is_the_reference_however_it_is_read(tiny_bundle, tiny_checkpoint, shape):
    from edge_assistant_export.checkpoint import Checkpoint
    from edge_assistant_export.reference import forward

    with Checkpoint.open(tiny_checkpoint(**shape)) as checkpoint:
        reference = forward(checkpoint, IDS)
    bundle = tiny_bundle(shape)
    assert bundle.manifest.cache.window == "bounded"
    for chunk in (LENGTH, 33, 16, 8, 5, 1):
        session = session_of(bundle)
        np.testing.assert_allclose(read(session, IDS, chunk), reference, atol=TOLERANCE)
        bounded = session.cache.layers[-1][0]
        assert bounded.shape[2] == shape["sliding_window"] + SLACK


@pytest.mark.parametrize("shape", [WINDOW, SHAPES["in one layer of two"]], ids=["in all layers", "in one of two"])
def test_an_int8_cache_is_that_of_the_full_length_variant(tiny_bundle, shape):
    bounded, full = (tiny_bundle(shape, cache="int8", window_cache=kind) for kind in ("bounded", "full"))
    expected = read(session_of(full), IDS, LENGTH)
    for chunk in (LENGTH, 16, 5, 1):
        np.testing.assert_allclose(read(session_of(bounded), IDS, chunk), expected, atol=TOLERANCE)


@pytest.mark.parametrize("chunk", [1, 3, 8, 40])
@pytest.mark.parametrize("shape", [WINDOW, {"sliding_window": 3}], ids=str)
def test_the_graph_lays_its_rows_as_the_rule_says(tiny_bundle, shape, chunk):
    """With G = C - W + 1, and D(T) the multiple of G that leaves the W to C last positions: row i is position D + i."""
    bounded, full = (session_of(tiny_bundle(shape, window_cache=kind)) for kind in ("bounded", "full"))
    window = shape["sliding_window"]
    rows = window + SLACK
    for start in range(0, LENGTH, chunk):
        for session in (bounded, full):
            session.run(IDS[start : start + chunk])
        length = bounded.cache.length
        dropped = max(0, -(-(length - rows) // (SLACK + 1)) * (SLACK + 1))
        assert length <= rows or window <= length - dropped <= rows
        for held, every in zip(bounded.cache.layers[0], full.cache.layers[0], strict=True):
            np.testing.assert_allclose(held[:, :, : length - dropped], every[:, :, dropped:length], atol=TOLERANCE)


def test_fewer_rows_than_the_window_are_refused_by_the_graph_and_never_made(tiny_bundle, monkeypatch):
    bundle = tiny_bundle(WINDOW)
    session = session_of(bundle, capacity=5)
    assert session.cache.layers[0][0].shape[2] == 8
    np.testing.assert_allclose(read(session, IDS[:5], 2), read(session_of(bundle), IDS[:5], 5), atol=TOLERANCE)
    monkeypatch.setattr("edge_assistant.engine.kv_cache.bounded_rows", lambda _window, _capacity: 5)
    with pytest.raises(RuntimeError, match=r"capacity \(5\) must be at least local_window_size \(8\)"):
        session_of(bundle, capacity=5).run([1])


@pytest.mark.parametrize("start", [1, 5, 31])
def test_a_prompt_is_cut_where_the_window_is_full(tiny_bundle, start):
    """Whatever a step drops, none of its own tokens sees: every run either begins with full rows or drops nothing."""
    session = Session(
        tiny_bundle(WINDOW), KvCache(tiny_bundle(WINDOW).manifest, LENGTH), EngineSettings(prefill_chunk=3)
    )
    read(session, IDS[:start], 5)
    rows, chunks = 8 + SLACK, []
    for chunk in session.chunks(IDS[start:]):
        before = session.cache.length
        session.run(chunk)
        assert not any(
            (length - rows) % (SLACK + 1) == 0 for length in range(max(rows, before + 1), session.cache.length)
        )
        chunks.append(chunk)
    np.testing.assert_array_equal(np.concatenate(chunks), IDS[start:])
    assert max(map(len, chunks)) == 3


def test_greedy_tokens_are_those_of_the_full_length_variant(tiny_bundle):
    for shape in (WINDOW, SHAPES["in one layer of two"]):
        answers = []
        for kind in ("bounded", "full"):
            with Engine.load(tiny_bundle(shape, window_cache=kind), SETTINGS) as engine:
                answers.append(list(engine.generate(IDS[:50], SamplingParams(max_tokens=200))))
        assert answers[0] == answers[1]


feeds = st.tuples(st.just("feed"), st.integers(1, 8), st.integers(0, 10**6))
rewinds = st.tuples(st.just("rewind"), st.integers(0, 12), st.just(0))


@given(st.sampled_from(["in all layers", "shorter than the slack", "in one layer of two"]), st.data())
def test_a_rewound_context_is_a_fresh_one_or_is_refused(tiny_bundle, name, data):
    """What is taken back from the farthest that was reached, up to the slack and one, is never refused."""
    window = SHAPES[name]["sliding_window"]
    bounded, full = (session_of(tiny_bundle(SHAPES[name], window_cache=kind), 400) for kind in ("bounded", "full"))
    farthest = 0
    for kind, n, seed in data.draw(st.lists(feeds | feeds | rewinds, min_size=1, max_size=40)):
        length = bounded.cache.length
        if kind == "feed":
            ids = np.random.default_rng(seed).integers(14, 270, min(n, window))
            np.testing.assert_allclose(rows(bounded, ids), rows(full, ids), atol=TOLERANCE)
            farthest = max(farthest, length + len(ids))
        elif (target := max(0, length - n)) == 0 or target >= bounded.cache.shortest():
            farthest = farthest if target else 0
            bounded.cache.rewind(target)
            full.cache.rewind(target)
        else:
            assert farthest - target > SLACK + 1
            with pytest.raises(RewindError, match=f"taken back to {target}"):
                bounded.cache.rewind(target)
            assert bounded.cache.length == length


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 60)), min_size=1, max_size=8))
def test_long_steps_never_make_a_rewind_wrong(tiny_bundle, turns):
    """A step longer than the window passes positions by that can then not be had back."""
    bounded, full = (session_of(tiny_bundle(WINDOW, window_cache=kind), 400) for kind in ("bounded", "full"))
    for n, back in turns:
        ids = np.random.default_rng(n).integers(14, 270, n)
        np.testing.assert_allclose(rows(bounded, ids), rows(full, ids), atol=TOLERANCE)
        target = max(0, bounded.cache.length - back)
        target = target if target >= bounded.cache.shortest() else 0
        for session in (bounded, full):
            session.cache.rewind(target)


@pytest.mark.parametrize("back", [2, 30])
def test_a_rewind_that_nobody_guards_is_silently_wrong(tiny_bundle, back):
    """Why there is a guard: the graph takes a length at its word."""
    bounded, full = (session_of(tiny_bundle(WINDOW, window_cache=kind)) for kind in ("bounded", "full"))
    length = 8 + SLACK + 1 + 10 * (SLACK + 1)
    for session in (bounded, full):
        read(session, IDS[:length], 8)
        session.cache.length = length - back
    assert np.abs(bounded.run([20]) - full.run([20])).max() > 0.1


@pytest.mark.parametrize(("shared", "kept"), [(59, 59), (53, 53), (52, 0), (30, 0), (0, 0)])
def test_a_prompt_is_read_anew_where_what_it_shares_is_no_longer_held(tiny_bundle, shared, kept):
    """After 60 tokens 50 are dropped and 46 to 49 kept: position 53 sees 46 and all after it."""
    bundle, params = tiny_bundle(WINDOW), SamplingParams(20)
    prompt = [*IDS[:shared], 99, 98]
    with Engine.load(bundle, SETTINGS) as engine, Engine.load(bundle, SETTINGS) as fresh:
        list(engine.generate(IDS[:60], SamplingParams(1)))
        answer = engine.generate(prompt, params)
        assert list(answer) == list(fresh.generate(prompt, params))
        assert answer.usage.cached_tokens == kept


def test_a_step_that_fails_leaves_no_context(tiny_bundle):
    session = session_of(tiny_bundle(WINDOW))
    read(session, IDS[:50], 8)
    with pytest.raises(Exception, match="out of"):
        session.run([10**6])
    assert session.cache.length == 0
    np.testing.assert_allclose(
        read(session, IDS[:50], 8), read(session_of(tiny_bundle(WINDOW)), IDS[:50], 8), atol=TOLERANCE
    )


@pytest.mark.parametrize("window", [1, 3])
def test_guesses_that_a_window_could_not_take_back_are_not_run(tiny_bundle, monkeypatch, window):
    monkeypatch.setattr(Pace, "look", lambda self: True)
    monkeypatch.setattr(Pace, "worth", lambda self, guess, others: len(guess.tokens))
    prompt, params, answers = [1, *IDS[:6].tolist() * 9], SamplingParams(max_tokens=60), []
    for guesses in (0, 8):
        with Engine.load(tiny_bundle({"sliding_window": window}), EngineSettings(threads=1, guesses=guesses)) as engine:
            answers.append([list(engine.generate(prompt[start:], params)) for start in range(6)])
    assert answers[0] == answers[1]
