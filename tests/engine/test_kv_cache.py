"""The cache: a budget becomes a capacity, and a context is kept as far as the next prompt shares it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.bundle import Architecture, CacheSpec, Manifest, Quantization, Source, cache_bytes_per_token
from edge_assistant.engine.kv_cache import KvCache, capacity_of
from edge_assistant.errors import CacheBudgetError


def manifest(cache: str = "float32", **shape: int) -> Manifest:
    sizes = {"n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "max_positions": 512} | shape
    architecture = Architecture(
        family="mistral",
        hidden_size=32,
        ffn_size=64,
        vocab_size=64,
        rope_theta=1e4,
        norm_eps=1e-5,
        sliding_window=None,
        tied_embedding=True,
        n_experts=0,
        n_experts_per_token=0,
        full_attention_layers=(),
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
        CacheSpec(cache),
        None,
        {},
        None,
        source,
        None,
        {},
        None,
    )


def test_the_worked_example_holds():
    shape = {"n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "head_dim": 128, "max_positions": 32768}
    assert capacity_of(manifest(**shape), 2**30) == 4096
    assert capacity_of(manifest("int8", **shape), 2**30) == 16384


@given(
    budget=st.integers(1, 2**22),
    cache=st.sampled_from(["float32", "int8"]),
    n_layers=st.integers(1, 4),
    n_kv_heads=st.sampled_from([1, 2, 4]),
    head_dim=st.integers(1, 33),
    max_positions=st.integers(1, 600),
)
def test_the_cache_is_the_largest_that_the_budget_and_the_tables_allow(budget, cache, max_positions, **shape):
    facts = manifest(cache, max_positions=max_positions, **shape)
    per_token = cache_bytes_per_token(facts)
    if budget < per_token:
        with pytest.raises(CacheBudgetError):
            capacity_of(facts, budget)
        return
    capacity = capacity_of(facts, budget)
    assert capacity == max_positions or capacity * per_token <= budget < (capacity + 1) * per_token
    allocated = KvCache(facts, capacity)
    assert allocated.nbytes == capacity * per_token
    for key, value in allocated.layers:
        assert key.shape == value.shape == (1, shape["n_kv_heads"], capacity, shape["head_dim"])
        assert key.dtype == value.dtype == np.dtype(cache)
        assert key.ctypes.data % 64 == value.ctypes.data % 64 == 0


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
