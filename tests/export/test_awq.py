"""AWQ: scaling changes nothing but what rounding costs."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from edge_assistant_export.awq import Blocks, Scaled, scaled
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.quantize import dequantize, quantize
from edge_assistant_export.reference import Observer, forward_all, hidden_states

TEXTS = [[1, *range(5, 60)], [1, 4, 9]]
BLOCKS = defaultdict(lambda: Blocks(bits=4, block_size=32, zero_points=False))
MODELS = {
    "heads of their own": {"num_attention_heads": 4, "num_key_value_heads": 4},
    "heads that share": {"num_attention_heads": 4, "num_key_value_heads": 2},
    "mixture": {"num_local_experts": 4, "num_experts_per_tok": 2},
}


@pytest.fixture(params=MODELS)
def checkpoint(request, tiny_checkpoint):
    with Checkpoint.open(tiny_checkpoint(**MODELS[request.param])) as checkpoint:
        yield checkpoint


class Uneven:
    """A checkpoint with channels that stand out, as those of large models do: random weights have none."""

    def __init__(self, checkpoint):
        self.config, self._checkpoint = checkpoint.config, checkpoint

    def tensor(self, name, rows=None):
        tensor = self._checkpoint.tensor(name, rows)
        if name.endswith(("attention_norm", "ffn_norm")):
            tensor[::7] *= 30
        if name.endswith((".v", ".up")):
            tensor[::5] *= 30 if rows is None or rows.start in (None, 0) else 1
        return tensor


def test_the_function_stays(checkpoint, tmp_path):
    model = Uneven(checkpoint)
    found = scaled(model, TEXTS, BLOCKS, tmp_path / "scales.npz")
    for name in ("attention_norm", "q", "k", "v", "o", "ffn_norm"):
        at = f"layers.1.{name}"
        assert not np.allclose(found.tensor(at), model.tensor(at)), f"{at} is not scaled at all"
    for one, other in zip(forward_all(model, TEXTS), forward_all(found, TEXTS), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-3 * np.abs(one).max())


def test_a_channel_that_is_always_zero_is_left_as_it_is(checkpoint, tmp_path):
    """Made larger than those that are met, it would coarsen the scale of every block it lies in."""

    class Dead(Uneven):
        def tensor(self, name, rows=None):
            tensor = super().tensor(name, rows)
            if name.endswith(("attention_norm", "ffn_norm")):
                tensor[3] = 0
                tensor *= 0.01
            return tensor

    model = Dead(checkpoint)
    found = scaled(model, TEXTS, BLOCKS, tmp_path / "scales.npz")
    for layer in range(model.config.n_layers):
        one, other = (each.tensor(f"layers.{layer}.q") for each in (found, model))
        np.testing.assert_array_equal(one[:, 3], other[:, 3])
        assert not np.allclose(one, other)


def test_products_are_nearer_than_without(checkpoint, tmp_path):
    """Of each layer's q, for the inputs that it meets: the scales were found for a part of them."""
    model = Uneven(checkpoint)
    found = scaled(model, TEXTS, BLOCKS, tmp_path / "scales.npz")

    def error(one):
        met = Inputs()
        hidden_states(one, TEXTS, observer=met)
        total = 0.0
        for name, x in met.seen.items():
            weight = one.tensor(name)
            total += np.square(x @ (dequantize(quantize(weight, 4, 32), 4, weight.shape[1]) - weight).T).sum()
        return total

    assert error(found) < 0.9 * error(model)


def test_a_matrix_is_scaled_for_its_own_bits(tiny_checkpoint, tmp_path):
    """The scales found for 8 bits serve 8 bits better than those found for 4."""
    name = "layers.1.down"
    with Checkpoint.open(tiny_checkpoint()) as checkpoint:
        model = Uneven(checkpoint)
        met = Inputs(".down")
        hidden_states(model, TEXTS, observer=met)
        weight, x = model.tensor(name), met.seen[name]
        costs = []
        for bits in (8, 4):
            mixed = BLOCKS | {name: Blocks(bits, 32, zero_points=False)}
            found = scaled(model, TEXTS, defaultdict(BLOCKS.default_factory, mixed), tmp_path / f"{bits}.npz")
            scales = found.tensor(name)[0] / weight[0]
            rounded = dequantize(quantize(weight * scales, 8, 32), 8, weight.shape[1]) / scales
            costs.append(np.square(x @ (rounded - weight).T).sum())
    assert costs[0] < costs[1]


class Inputs(Observer):
    """Keeps what the matrices of a kind meet."""

    def __init__(self, kind=".q"):
        self.kind = kind
        self.seen = {}

    def inputs(self, name, x, residual=None):
        if name.endswith(self.kind):
            self.seen[name] = x


def test_rows_are_scaled_as_the_whole_is(checkpoint, tmp_path):
    found = scaled(checkpoint, TEXTS, BLOCKS, tmp_path / "scales.npz")
    for name in ("layers.0.v", "layers.0.o", "layers.0.q"):
        np.testing.assert_array_equal(found.tensor(name, slice(3, 7)), found.tensor(name)[3:7])


def test_scales_are_found_once(checkpoint, tmp_path):
    """A killed export must not go on with others than those it began with."""
    keep = tmp_path / "scales.npz"
    first = scaled(checkpoint, TEXTS, BLOCKS, keep)
    again = scaled(checkpoint, [[1, 2, 3]], BLOCKS, keep)
    for name in ("layers.0.attention_norm", "layers.1.o"):
        np.testing.assert_array_equal(first.tensor(name), again.tensor(name))
    assert [path.name for path in tmp_path.iterdir()] == ["scales.npz"]


def test_a_model_without_factors_is_itself(checkpoint):
    np.testing.assert_array_equal(Scaled(checkpoint, {}).tensor("norm"), checkpoint.tensor("norm"))
