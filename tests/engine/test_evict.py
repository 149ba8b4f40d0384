"""Eviction: rows that moved are those of a context that never held the span, as far as they can be.

Keys and values of the first layer depend on their own token alone, so there, and in a model of one layer altogether,
an evicted context is a fresh one. Tolerances: 1e-5 for keys of a spread of 1, 1e-4 for logits that spread over some
±15; in int8 half a step of a key's channel each time it is turned, and 0.3 for logits.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.bundle import Bundle, read_constants
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine, Keep, SamplingParams
from edge_assistant.engine.evict import key_scales
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.session import Session
from edge_assistant.errors import BundleGraphError, EvictionError

REUSING = EngineSettings(threads=1, prefill_chunk=16, cache_reuse=8, sequences=1)
IDS = np.random.default_rng(1).integers(14, 270, 300)
ONE_LAYER = {"num_hidden_layers": 1}
YARN = {"rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "beta_fast": 2.0}}
SHAPES = {
    "grouped": {},
    "not shared": {"num_key_value_heads": 4},
    "heads the kernel cannot rotate": {"head_dim": 24},
    "yarn": YARN,
    "window of full length": {"sliding_window": 16},
}
GREEDY = SamplingParams(max_tokens=20)


def bundle_of(tiny_bundle, shape, **recipe) -> Bundle:
    return tiny_bundle(ONE_LAYER | shape, window_cache="full", **recipe)


def session_of(bundle: Bundle, capacity: int = 320) -> Session:
    cache = KvCache(bundle.manifest, capacity, key_scales=key_scales(bundle))
    return Session(bundle, cache, EngineSettings(threads=1))


def read(session: Session, ids: np.ndarray) -> np.ndarray:
    """Read ids and return the logits [n, vocab] after each."""
    return session.run_rows(ids, len(ids))


def rotated(keys: np.ndarray, positions: np.ndarray, theta: float) -> np.ndarray:
    """Turn keys [heads, n, head_dim] as at positions [n]; the pairs are complex numbers here."""
    half = keys.shape[-1] // 2
    turns = np.exp(1j * np.outer(positions, theta ** (-np.arange(half) / half)))
    pairs = (keys[..., :half] + 1j * keys[..., half:]) * turns
    return np.concatenate((pairs.real, pairs.imag), axis=-1)


spans = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=6)


@given(spans, st.integers(1, 300))
def test_moved_keys_are_the_unrotated_ones_rotated_where_they_now_stand(tiny_bundle, spans, length):
    bundle = tiny_bundle()
    architecture, random = bundle.manifest.architecture, np.random.default_rng(length)
    raw, values = random.standard_normal((2, 2, length, 16))
    cache = KvCache(bundle.manifest, 320)
    for key_rows, value_rows in cache.layers:
        key_rows[0, :, :length] = rotated(raw, np.arange(length), architecture.rope_theta)
        value_rows[0, :, :length] = values
    cache.tokens[0, :length] = tokens = np.arange(length)
    cache.length = length
    for place, size in spans:
        start = min(place, cache.length)
        gone = np.s_[start : start + size]
        cache.evict(start, start + size)
        raw, values = (np.delete(array, gone, axis=1) for array in (raw, values))
        tokens = np.delete(tokens, gone)
    np.testing.assert_array_equal(cache.context, tokens)
    expected = rotated(raw, np.arange(len(tokens)), architecture.rope_theta)
    for key_rows, value_rows in cache.layers:
        np.testing.assert_allclose(key_rows[0, :, : cache.length], expected, atol=1e-5)
        np.testing.assert_array_equal(value_rows[0, :, : cache.length], values.astype(np.float32))


@given(spans)
def test_int8_keys_move_by_half_a_step_at_most_each_time(tiny_bundle, spans):
    bundle = tiny_bundle(cache="int8")
    (scales, *_), theta = key_scales(bundle), bundle.manifest.architecture.rope_theta
    cache = KvCache(bundle.manifest, 320, key_scales=key_scales(bundle))
    rows = np.random.default_rng(5).integers(-60, 61, (2, 300, 16))
    cache.layers[0][0][0, :, :300] = rows
    cache.tokens[0, :300] = places = np.arange(300)
    cache.length = 300
    for start, size in spans:
        cache.evict(min(start, cache.length), start + size)
    # Unrotated, so that a key can be compared wherever it stands; a turn mixes the two channels of a pair.
    kept, before = cache.context, rotated(rows * scales, -places, theta)
    now = rotated(cache.layers[0][0][0, :, : len(kept)] * scales, -np.arange(len(kept)), theta)
    pair = np.hypot(*np.split(scales, 2, axis=-1)) / 2 * len(spans)
    off = np.abs(now - before[:, kept])
    assert (np.hypot(*np.split(off, 2, axis=-1)) <= pair * 1.001).all()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_in_one_layer_an_evicted_context_is_a_fresh_one(tiny_bundle, shape):
    evicted, fresh = evicted_and_fresh(bundle_of(tiny_bundle, shape))
    np.testing.assert_allclose(evicted, fresh, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_in_one_layer_int8_keys_are_little_farther_from_floats_than_before(tiny_bundle, shape):
    evicted, fresh = evicted_and_fresh(bundle_of(tiny_bundle, shape, cache="int8"))
    _, exact = evicted_and_fresh(bundle_of(tiny_bundle, shape))
    off, was = (np.abs(logits - exact).mean() for logits in (evicted, fresh))
    assert was < off < 2 * was


def evicted_and_fresh(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """Return logits [50, vocab] behind a context from which three spans were evicted, and behind what was left."""
    session, fresh = session_of(bundle), session_of(bundle)
    read(session, IDS[:250])
    for start, end in ((4, 44), (0, 30), (100, 170)):
        session.cache.evict(start, end)
    kept = np.r_[IDS[:4], IDS[44:250]][30:][np.r_[:100, 170:180]]
    np.testing.assert_array_equal(session.cache.context, kept)
    read(fresh, kept)
    return read(session, IDS[250:]), read(fresh, IDS[250:])


def test_in_several_layers_what_stays_carries_what_went_and_the_first_layer_does_not(tiny_bundle):
    bundle = tiny_bundle()
    session, fresh = session_of(bundle), session_of(bundle)
    read(session, IDS[:200])
    session.cache.evict(20, 120)
    read(fresh, np.r_[IDS[:20], IDS[120:200]])
    for one, other in zip(session.cache.layers[0], fresh.cache.layers[0], strict=True):
        np.testing.assert_allclose(one[:, :, :100], other[:, :, :100], atol=1e-4)
    for one, other in zip(session.cache.layers[1], fresh.cache.layers[1], strict=True):
        np.testing.assert_allclose(one[:, :, :20], other[:, :, :20], atol=1e-4)
        assert np.abs(one - other)[:, :, 20:100].max() > 0.1
    assert (session.cache.exact, fresh.cache.exact) == (20, 100)


def test_what_is_exact_is_known_after_everything(tiny_bundle):
    cache = session_of(tiny_bundle()).cache
    with cache.step(IDS[:100]):
        pass
    assert cache.exact == 100
    cache.evict(90, 100)
    assert (cache.length, cache.exact) == (90, 90)
    cache.evict(40, 50)
    with cache.step([1]):
        pass
    assert (cache.length, cache.exact) == (81, 40)
    cache.evict(60, 70)
    cache.rewind(50)
    assert (cache.length, cache.exact) == (50, 40)
    cache.evict(10, 20)
    assert cache.exact == 10
    cache.rewind(10)
    with cache.step([1] * 50):
        pass
    assert (cache.length, cache.exact) == (60, 60)


def test_a_bounded_window_is_not_evicted_from(tiny_bundle):
    session = session_of(tiny_bundle({"sliding_window": 8}), 4000)
    read(session, IDS[:100])
    with pytest.raises(EvictionError, match="--window-cache full"):
        session.cache.evict(4, 10)
    assert session.cache.length == 100
    assert session.cache.keep_shared(np.r_[IDS[:4], IDS[44:100]], 8) == 4


def test_scales_are_those_of_the_graph_s_file(tiny_bundle, tmp_path):
    import onnx_ir

    bundle = tiny_bundle(cache="int8")
    constants = onnx_ir.load(bundle.graph_path).graph.initializers
    for layer, scales in enumerate(key_scales(bundle)):
        stored = constants[f"layers.{layer}.k_scale"].const_value.numpy()
        np.testing.assert_array_equal(scales, stored.reshape(2, 1, 16))
    assert key_scales(tiny_bundle()) == ()
    with pytest.raises(BundleGraphError, match=r"layers\.7\.k_scale is missing"):
        read_constants(bundle.graph_path, ["layers.0.k_scale", "layers.7.k_scale"])
    for content in (b"", b"\x0f", b"\xff" * 20, bundle.graph_path.read_bytes()[:100]):
        (tmp_path / "model.onnx").write_bytes(content)
        with pytest.raises(BundleGraphError):
            read_constants(tmp_path / "model.onnx", ["layers.0.k_scale"])


tokens = st.lists(st.integers(0, 2), max_size=60)


@given(tokens, tokens, tokens, tokens, st.integers(0, 20))
def test_what_is_kept_is_the_prompt_s_own_and_at_least_the_prefix(tiny_bundle, before, gone, behind, new, cache_reuse):
    cache, plain = (KvCache(tiny_bundle().manifest, 200) for _ in range(2))
    context, prompt = np.array([before + gone + behind] * 2, np.int64)[0], np.array([*before, *behind, *new, 1])
    for one in (cache, plain):
        one.tokens[0, : len(context)] = context
        one.length = one.comes_again = len(context)
    kept, prefix = cache.keep_shared(prompt, cache_reuse), plain.keep_prefix(prompt)
    assert kept == cache.length < len(prompt)
    np.testing.assert_array_equal(cache.context, prompt[:kept])
    assert kept >= prefix if cache_reuse else kept == prefix
    evicted = kept > cache.exact
    assert evicted == (kept > prefix)
    if evicted:
        assert kept - prefix >= cache_reuse
    elif cache_reuse and len(behind) >= max(cache_reuse, 8) and gone:
        # All that stands behind the span could have been kept, unless what is shared reaches into it.
        assert prefix > len(before)


def test_a_conversation_without_its_oldest_turns_is_not_read_again(tiny_bundle):
    bundle = tiny_bundle(ONE_LAYER)
    system, turns, question = IDS[:30], np.split(IDS[30:230], 5), IDS[240:260]
    first, second = [*system, *np.r_[tuple(turns)]], [*system, *np.r_[tuple(turns[2:])], *question]
    with Engine.load(bundle, REUSING) as engine, Engine.load(bundle, REUSING) as fresh:
        list(engine.generate([*first, 20], GREEDY, keep=Keep(230)))
        answer = engine.generate(second, GREEDY, keep=Keep(150))
        assert list(answer) == list(fresh.generate(second, GREEDY))
        assert answer.usage.cached_tokens == 30 + 120
        again = engine.generate([*system, *turns[4], *question], GREEDY)
        assert list(again) == list(fresh.generate([*system, *turns[4], *question], GREEDY))
        assert again.usage.cached_tokens == 30 + 40


def test_too_little_is_read_anew_and_so_is_all_where_nothing_may_be_reused(tiny_bundle):
    context, prompt = [*IDS[:200]], [*IDS[:30], *IDS[160:200], 20, 21]
    for cache_reuse, kept in ((40, 70), (41, 30), (0, 30)):
        settings = EngineSettings(threads=1, cache_reuse=cache_reuse, sequences=1)
        with Engine.load(tiny_bundle(), settings) as engine:
            list(engine.generate(context, SamplingParams(1), keep=Keep(200)))
            answer = engine.generate(prompt, GREEDY)
            list(answer)
            assert answer.usage.cached_tokens == kept


class CancelledAt(threading.Event):
    """An event that is found set the n-th time it is looked at: a cancellation at a known place."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.mark.parametrize("looks", [0, 1, 2, 5])
def test_a_prompt_that_is_cancelled_behind_an_eviction_leaves_the_context_whole(tiny_bundle, looks):
    bundle = tiny_bundle(ONE_LAYER)
    prompt = [*IDS[:30], *IDS[130:200], *IDS[250:290]]
    with Engine.load(bundle, REUSING) as engine, Engine.load(bundle, REUSING) as fresh:
        list(engine.generate([*IDS[:200], 20], SamplingParams(1), keep=Keep(200)))
        list(engine.generate(prompt, GREEDY, CancelledAt(looks), Keep(100)))
        answer = engine.generate(prompt, GREEDY)
        assert list(answer) == list(fresh.generate(prompt, GREEDY))
        assert answer.usage.cached_tokens in (100, 116, 132, 139)


def test_no_prefix_is_kept_that_carries_what_was_evicted(tiny_bundle):
    """There is room to keep the second prompt, and not the first, out of which it would be cut again."""
    bundle, prompt = tiny_bundle(), [*IDS[:30], *IDS[130:200], 20, 21]
    room = REUSING.model_copy(update={"prefix_bytes": 150 * bundle.manifest.cache_size.per_token})
    with Engine.load(bundle, room) as engine, Engine.load(bundle, REUSING) as fresh:
        list(engine.generate(IDS[:200], SamplingParams(1), keep=Keep(200)))
        answer = engine.generate(prompt, GREEDY, keep=Keep(100))
        list(answer)
        assert (answer.usage.cached_tokens, engine._prefixes._tree.bytes) == (100, 0)
        list(engine.generate([5], GREEDY))
        assert list(engine.generate(prompt, GREEDY, keep=Keep(100))) == list(fresh.generate(prompt, GREEDY))
        assert engine._prefixes._tree.bytes > 0


def test_kept_prefixes_and_evictions_get_on(tiny_bundle):
    bundle = tiny_bundle(ONE_LAYER)
    system, turns = IDS[:30], np.split(IDS[30:230], 5)
    prompts = [
        [*system, *np.r_[tuple(turns[number : number + 3])], *IDS[240 + number : 260]] for number in (0, 1, 2, 0)
    ]
    with Engine.load(bundle, REUSING) as engine:
        for prompt in prompts:
            with Engine.load(bundle, REUSING) as fresh:
                expected = list(fresh.generate(prompt, GREEDY))
            assert list(engine.generate(prompt, GREEDY, keep=Keep(150))) == expected


@pytest.mark.parametrize(("tokens", "kept"), [(200, 70), (170, 40), (168, 38), (167, 30), (0, 30)])
def test_only_what_comes_again_is_moved(tiny_bundle, tokens, kept):
    """Of 200 tokens of which so many come again 130 go, and the rest behind them is kept if it is eight or more."""
    with Engine.load(tiny_bundle(), REUSING) as engine:
        list(engine.generate(IDS[:200], SamplingParams(1), keep=Keep(tokens)))
        assert engine._open_scheduler._slots.all[0].cache.comes_again == tokens
        answer = engine.generate([*IDS[:30], *IDS[160:200], 20, 21], SamplingParams(1))
        list(answer)
        assert answer.usage.cached_tokens == kept


@pytest.mark.parametrize(("tokens", "kept"), [(200, 140), (170, 110), (98, 38), (97, 30), (0, 0)])
def test_a_conversation_that_has_lost_its_slot_is_cut_out_of_the_kept_prefixes(tiny_bundle, tokens, kept):
    """Its prompt lacks 60 tokens behind the first 30; in one layer what is moved is exact."""
    bundle, prompt = tiny_bundle(ONE_LAYER), [*IDS[:30], *IDS[90:200], 20, 21]
    with Engine.load(bundle, REUSING) as engine, Engine.load(bundle, REUSING) as fresh:
        list(engine.generate(IDS[:200], SamplingParams(1), keep=Keep(tokens)))
        list(engine.generate(IDS[210:290], SamplingParams(1), keep=Keep(80)))
        answer = engine.generate(prompt, GREEDY, keep=Keep(140))
        assert list(answer) == list(fresh.generate(prompt, GREEDY))
        assert answer.usage.cached_tokens == kept
        cache = engine._open_scheduler._slots.all[0].cache
        assert cache.exact == (30 if kept > 30 else cache.length)


@pytest.mark.parametrize("cache_reuse", [0, 8, 110, 111])
def test_a_cut_has_to_gain_as_much_in_the_kept_prefixes(tiny_bundle, cache_reuse):
    settings = REUSING.model_copy(update={"cache_reuse": cache_reuse})
    with Engine.load(tiny_bundle(), settings) as engine:
        list(engine.generate(IDS[:200], SamplingParams(1), keep=Keep(200)))
        list(engine.generate(IDS[210:290], SamplingParams(1)))
        answer = engine.generate([*IDS[:30], *IDS[90:200], 20, 21], SamplingParams(1))
        next(answer)
        assert answer.usage.cached_tokens == (140 if 0 < cache_reuse <= 110 else 30)


def test_what_comes_again_follows_the_context(tiny_bundle):
    cache = session_of(tiny_bundle()).cache
    with cache.step(IDS[:100]):
        cache.comes_again = 60
    cache.evict(70, 80)
    assert cache.comes_again == 60
    cache.evict(50, 70)
    assert cache.comes_again == 50
    cache.evict(10, 20)
    assert cache.comes_again == 40
    cache.rewind(45)
    assert cache.comes_again == 40
    cache.rewind(5)
    assert cache.comes_again == 5


operations = st.one_of(
    st.tuples(st.just("read"), st.integers(1, 40), st.just(0)),
    st.tuples(st.just("evict"), st.integers(0, 100), st.integers(0, 40)),
    st.tuples(st.just("rewind"), st.integers(0, 200), st.just(0)),
    st.tuples(st.just("make room"), st.integers(1, 128), st.just(0)),
    st.tuples(st.just("keep"), st.integers(0, 60), st.integers(1, 40)),
)


@given(st.lists(operations, max_size=15))
def test_in_one_layer_a_context_is_a_fresh_one_whatever_was_done(tiny_bundle, done):
    bundle = tiny_bundle(ONE_LAYER)
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
            cache.comes_again = cache.length
            prompt = np.append(np.delete(cache.context, np.s_[one : one + other]), [20, 21])
            assert cache.keep_shared(prompt, 8) == cache.length
        assert cache.length <= 128
        assert 0 <= cache.exact <= cache.length
        assert cache.comes_again <= cache.capacity
    context = cache.context[:127].copy()
    cache.rewind(127)
    fresh = session_of(bundle, 128)
    if len(context):
        fresh.run(context)
    np.testing.assert_allclose(session.run([20]), fresh.run([20]), atol=1e-4)
