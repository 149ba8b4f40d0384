"""The cache: a budget becomes a capacity, and a context is kept as far as the next prompt shares it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.bundle import REWINDABLE, Architecture, CacheSpec, Manifest, Quantization, Source, bounded_rows
from edge_assistant.engine.kv_cache import KvCache, capacity_of, slots
from edge_assistant.errors import CacheBudgetError

MISTRAL_7B = {"n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "head_dim": 128, "max_positions": 32768}


def manifest(cache: str = "float32", window_cache: str = "bounded", **shape: int | tuple[int, ...] | None) -> Manifest:
    sizes = {"n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "max_positions": 512}
    sizes |= {"sliding_window": None, "full_attention_layers": ()} | shape
    architecture = Architecture(
        family="mistral",
        hidden_size=32,
        ffn_size=64,
        vocab_size=64,
        rope_theta=1e4,
        norm_eps=1e-5,
        tied_embedding=True,
        n_experts=0,
        n_experts_per_token=0,
        yarn=None,
        **sizes,
    )
    quantization = Quantization(4, (), 32, (), False, 4, "least_squares")
    source = Source("a test", "huggingface", None, None)
    return Manifest(
        1,
        "language",
        "tiny",
        "a test",
        architecture,
        quantization,
        CacheSpec(cache, window_cache if architecture.windowed_layers else None),
        None,
        {},
        None,
        source,
        None,
        {},
        None,
    )


def test_the_worked_example_holds():
    assert capacity_of(manifest(**MISTRAL_7B), 2**30) == 4096
    assert capacity_of(manifest("int8", **MISTRAL_7B), 2**30) == 16384


def test_the_worked_example_of_a_window_holds():
    one = manifest(sliding_window=4096, **MISTRAL_7B).cache_size
    assert (one.bound, one.of(32768)) == (5120, 1_342_177_280)
    assert manifest(window_cache="full", sliding_window=4096, **MISTRAL_7B).cache_size.of(32768) == 8_589_934_592
    some = manifest(sliding_window=4096, full_attention_layers=tuple(range(8)), **MISTRAL_7B)
    assert some.cache_size.of(32768) == 3_154_116_608
    for facts in (manifest(sliding_window=4096, **MISTRAL_7B), some):
        assert capacity_of(facts, facts.cache_size.of(32768)) == 32768
    assert capacity_of(some, some.cache_size.of(5121) - 1) == 5120


@given(
    budget=st.integers(1, 2**22),
    cache=st.sampled_from(["float32", "int8"]),
    window_cache=st.sampled_from(["bounded", "full"]),
    n_layers=st.integers(3, 5),
    n_kv_heads=st.sampled_from([1, 2, 4]),
    head_dim=st.integers(1, 33),
    max_positions=st.integers(1, 4000),
    sliding_window=st.none() | st.integers(1, 2000),
    full_attention_layers=st.sampled_from([(), (0,), (0, 2)]),
)
def test_the_cache_is_the_largest_that_the_budget_and_the_tables_allow(budget, cache, max_positions, **shape):
    facts = manifest(cache, max_positions=max_positions, **shape)
    size = facts.cache_size
    if budget < size.per_token:
        with pytest.raises(CacheBudgetError):
            capacity_of(facts, budget)
        return
    capacity = capacity_of(facts, budget)
    assert size.of(capacity) <= budget
    assert capacity == max_positions or budget < size.of(capacity + 1)
    assert size.of(capacity) == sum(bytes_by_hand(facts, layer, capacity) for layer in range(shape["n_layers"]))
    for layer, (key, value) in enumerate(KvCache(facts, capacity).layers):
        windowed = facts.cache.window == "bounded" and layer not in shape["full_attention_layers"]
        rows = bounded_rows(shape["sliding_window"], capacity) if windowed else capacity
        assert key.shape == value.shape == (1, shape["n_kv_heads"], rows, shape["head_dim"])
        assert key.dtype == value.dtype == np.dtype(cache)
        assert key.ctypes.data % 64 == value.ctypes.data % 64 == 0


def bytes_by_hand(facts: Manifest, layer: int, capacity: int) -> int:
    """Count the bytes of one layer: its window, the rows beyond it, and those that are kept beside them."""
    shape, window = facts.architecture, facts.architecture.window_of(layer)
    if facts.cache.window == "bounded" and window is not None:
        capacity = min(capacity, window + REWINDABLE + REWINDABLE)
    return 2 * capacity * shape.n_kv_heads * shape.head_dim * facts.cache.item_bytes


@given(window=st.integers(1, 10_000), capacity=st.integers(1, 20_000))
def test_a_bounded_buffer_holds_the_window_and_never_more_than_was_said(window, capacity):
    rows = bounded_rows(window, capacity)
    assert rows >= window
    if rows < capacity:
        assert rows == window + REWINDABLE
    else:
        assert rows in (window, capacity)


def test_a_budget_too_small_says_what_a_token_costs_and_what_would_do():
    facts = manifest()
    with pytest.raises(CacheBudgetError) as caught:
        capacity_of(facts, 255)
    assert isinstance(caught.value, MemoryError)
    for number in (255, 256, 512 * 256):
        assert str(number) in str(caught.value)


@given(context=st.lists(st.integers(0, 2), max_size=12), prompt=st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_the_longest_common_prefix_is_kept(context, prompt):
    cache = KvCache(manifest(), 12)
    cache.tokens[0, : len(context)] = context
    cache.length = len(context)
    kept = cache.keep_prefix(np.array(prompt))
    assert kept == cache.length < len(prompt)
    assert prompt[:kept] == context[:kept]
    assert kept == len(prompt) - 1 or kept == len(context) or prompt[kept] != context[kept]


def test_rewinding_never_goes_forward():
    cache = KvCache(manifest(), 12)
    cache.length = 5
    cache.rewind(8)
    assert cache.length == 5
    cache.rewind(2)
    assert cache.length == 2


def test_sequences_are_rows_of_one_buffer():
    layers, caches = slots(manifest(), 12, 3)
    for number, cache in enumerate(caches):
        for buffers, whole in zip(cache.layers, layers, strict=True):
            for buffer, all_rows in zip(buffers, whole, strict=True):
                assert all_rows.shape == (3, 2, 12, 8)
                buffer[:] = number
                assert buffer.flags.c_contiguous
    for whole in layers:
        for all_rows in whole:
            assert [set(rows.flat) for rows in all_rows] == [{0}, {1}, {2}]


@given(budget=st.integers(1, 2**20), sequences=st.integers(1, 9), max_positions=st.integers(1, 400))
def test_sequences_share_a_budget_evenly_and_to_the_last_token(budget, sequences, max_positions):
    facts = manifest(max_positions=max_positions)
    size = facts.cache_size
    if budget < sequences * size.per_token:
        with pytest.raises(CacheBudgetError, match=str(sequences * size.per_token)):
            capacity_of(facts, budget, sequences)
        return
    capacity = capacity_of(facts, budget, sequences)
    assert sequences * size.of(capacity) <= budget
    assert capacity == max_positions or sequences * size.of(capacity + 1) > budget


@given(budget=st.integers(1, 2**20), max_positions=st.integers(1, 400))
def test_more_sequences_never_make_the_longest_context_shorter(budget, max_positions):
    facts = manifest(max_positions=max_positions)
    sequences = facts.cache_size.sequences(budget)
    assert 1 <= sequences <= 4
    if budget >= facts.cache_size.per_token:
        assert capacity_of(facts, budget, sequences) == capacity_of(facts, budget)
    assert sequences == 4 or (sequences + 1) * facts.cache_size.of(max_positions) > budget


def test_a_board_s_default_is_one_sequence_of_a_large_model():
    assert manifest("int8", **MISTRAL_7B).cache_size.sequences(2**28) == 1
