"""What is said before an export is what is there after it."""

from __future__ import annotations

import pytest

from edge_assistant.bundle import WEIGHTS_FILE
from edge_assistant_export.estimate import estimate


@pytest.mark.parametrize("recipe", [{"bits": 4}, {"bits": 8, "block_size": 128}, {"bits": 32}])
def test_the_weights_take_what_was_said(recipe, tiny_checkpoint, export_bundle):
    manifest = export_bundle(tiny_checkpoint(tie_word_embeddings=True), **recipe).manifest
    assert estimate(manifest).bundle == manifest.files[WEIGHTS_FILE].bytes


def test_fewer_bits_and_larger_blocks_need_less_memory(tiny_checkpoint, export_bundle):
    path = tiny_checkpoint(hidden_size=256, num_attention_heads=16)
    recipes = [{"bits": 4, "block_size": 128}, {"bits": 4}, {"bits": 8}, {"bits": 32}]
    needs = [estimate(export_bundle(path, **recipe).manifest).memory for recipe in recipes]
    assert needs == sorted(set(needs))


def test_context_costs_by_the_token(tiny_checkpoint, export_bundle):
    (float32, int8) = (estimate(export_bundle(tiny_checkpoint(), cache=cache).manifest) for cache in ("float", "int8"))
    assert float32.memory_with(100) - float32.memory == 100 * 4 * (2 * 2 * 2 * 16)
    assert float32.cache.per_token == 4 * int8.cache.per_token


def test_a_bounded_window_costs_what_the_board_s_cache_takes(tiny_checkpoint, export_bundle):
    shape = {"sliding_window": 8, "max_position_embeddings": 4096}
    for kinds in ({}, {"layer_types": ["full_attention", "sliding_attention"]}):
        path = tiny_checkpoint(**shape, **kinds)
        bounded, full = (export_bundle(path, window_cache=kind).manifest for kind in ("bounded", "full"))
        needs = estimate(bounded)
        assert needs.memory == estimate(full).memory
        assert needs.memory_with(1032) == estimate(full).memory_with(1032)
        assert needs.memory_with(4096) - needs.memory == bounded.cache_size.of(4096) < full.cache_size.of(4096)


def test_eight_bits_below_level_4_need_their_largest_matrix_in_float32(tiny_checkpoint, export_bundle):
    path = tiny_checkpoint(hidden_size=256, num_attention_heads=16)
    slow, fast = (estimate(export_bundle(path, bits=8, accuracy_level=level).manifest) for level in (0, 4))
    assert slow.memory - fast.memory == 4 * 256 * (16 * 16 + 2 * 2 * 16)  # qkv


def test_a_token_reads_every_weight_but_the_embedding(tiny_checkpoint, export_bundle):
    needs = estimate(export_bundle(tiny_checkpoint(), bits=32).manifest)
    assert needs.read_per_token == 4 * needs.parameters
    assert needs.parameters == 2 * (64 * (64 + 2 * 32) + 64 * 64 + 3 * 64 * 96) + 64 * (14 + 256)


def test_a_token_reads_zero_points_too(tiny_checkpoint, export_bundle):
    plain, shifted = (
        estimate(export_bundle(tiny_checkpoint(), bits=8, zero_points=zeros).manifest) for zeros in (False, True)
    )
    assert shifted.read_per_token - plain.read_per_token == plain.parameters // 32  # a byte for each block of 32
