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
    assert float32.cache_per_token == 4 * int8.cache_per_token
