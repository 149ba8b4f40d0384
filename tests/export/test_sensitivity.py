"""What is measured in one pass is what whole passes with one matrix rounded measure."""

from __future__ import annotations

import numpy as np
import pytest

from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.quantize import dequantize, quantize
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.reference import forward_all
from edge_assistant_export.sensitivity import sensitivities

EXPERTS = [f"experts.{expert}.{name}" for expert in range(4) for name in ("gate", "up", "down")]
TENSORS = {"qkv": ["q", "k", "v"], "o": ["o"], "gate_up": ["gate", "up"], "down": ["down"], "experts": EXPERTS}
SHAPES = {
    "dense": {},
    "tied": {"tie_word_embeddings": True},
    "windowed": {"sliding_window": 9, "head_dim": 24},
    "mixture": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


class Rounded:
    """A checkpoint one of whose matrices is in 4 bits."""

    def __init__(self, checkpoint, matrix, *, block_size, zero_points):
        at, _, name = matrix.rpartition(".")
        self._tensors = [f"{at}.{tensor}" for tensor in TENSORS[name]] if at else [matrix]
        self._how = {"block_size": block_size, "zero_points": zero_points}
        self.config, self._checkpoint = checkpoint.config, checkpoint

    def tensor(self, name, rows=None):
        weight = self._checkpoint.tensor(name, rows)
        if name not in self._tensors:
            return weight
        return dequantize(quantize(weight, 4, **self._how), 4, weight.shape[1])


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def divergence(checkpoint, rounded, texts) -> float:
    parts = []
    for exact, found in zip(forward_all(checkpoint, texts), forward_all(rounded, texts), strict=True):
        log_p, log_q = log_softmax(exact), log_softmax(found)
        parts.append((np.exp(log_p) * (log_p - log_q)).sum(axis=1))
    return float(np.concatenate(parts).mean())


def some_texts(count, length):
    return [[1, *np.random.default_rng(seed).integers(14, 270, length - 1 + seed).tolist()] for seed in range(count)]


@pytest.mark.parametrize("how", [{"block_size": 32, "zero_points": False}, {"block_size": 32, "zero_points": True}])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_each_is_the_divergence_of_the_model_with_that_matrix_rounded(shape, how, tiny_checkpoint):
    texts = some_texts(3, 20)
    with Checkpoint.open(tiny_checkpoint(**shape)) as checkpoint:
        found = sensitivities(checkpoint, Recipe(**how).quantization(checkpoint.config), texts)
        inside = ("qkv", "o", "experts") if checkpoint.config.n_experts else ("qkv", "o", "gate_up", "down")
        names = ["embedding", *(f"layers.{layer}.{name}" for layer in range(2) for name in inside), "lm_head"]
        assert list(found) == (names[:-1] if checkpoint.config.tied_embedding else names)
        expected = {name: divergence(checkpoint, Rounded(checkpoint, name, **how), texts) for name in found}
    assert min(found.values()) > 0
    assert found == pytest.approx(expected, rel=0.01)


def test_of_much_text_some_is_read_from_all_over(tiny_checkpoint):
    """More than some thousand tokens say nothing new: a text of which none is read may change."""
    texts, told = some_texts(40, 70), []  # of 3,580 tokens every third text
    with Checkpoint.open(tiny_checkpoint()) as checkpoint:
        how = Recipe().quantization(checkpoint.config)
        found = sensitivities(checkpoint, how, texts, lambda *counts: told.append(counts))
        for at, alike in ((0, False), (1, True), (36, False), (37, True)):
            changed = [*texts[:at], texts[at][::-1], *texts[at + 1 :]]
            assert (sensitivities(checkpoint, how, changed) == found) == alike
    assert [done for done, _ in told] == list(range(1, told[-1][1] + 1))
