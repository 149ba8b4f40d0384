"""GPTQ: products are nearer to what they were than plain rounding leaves them, and boards read what is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge_assistant.errors import CheckpointError, RecipeError
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.compensate import Inputs, compensated, error_factor
from edge_assistant_export.quantize import dequantize, quantize
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.reference import hidden_states
from edge_assistant_export.verify import verify
from edge_assistant_export.write import export

ROWS, IN = 24, 172


def random(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


@pytest.fixture(scope="module")
def x():
    """Inputs whose channels move together, as those of a trained model do."""
    return random(400, 20) @ np.random.default_rng(7).standard_normal((20, IN), np.float32) + 0.1 * random(400, IN)


@pytest.fixture(scope="module")
def factor(x):
    return error_factor(x.T @ x)


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize(("bits", "block_size"), [(4, 32), (4, 64), (4, 128), (8, 32)])
def test_the_product_is_nearer_than_plain_rounding_leaves_it(x, factor, bits, block_size, zero_points):
    weight = random(ROWS, IN)

    def error(packed):
        return np.square(x @ (dequantize(packed, bits, IN) - weight).T).sum()

    mended = error(compensated(weight, factor, bits, block_size, zero_points=zero_points))
    assert mended < 0.3 * error(quantize(weight, bits, block_size, zero_points=zero_points))


def test_it_has_the_layout_of_plain_rounding(factor):
    weight = random(ROWS, IN)
    found, plain = (
        quantized(zero_points=True)
        for quantized in (
            lambda **how: compensated(weight, factor, 4, 32, **how),
            lambda **how: quantize(weight, 4, 32, **how),
        )
    )
    for one, other in zip(found, plain, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    assert not (found.scales.view(np.uint32) & 0xFFFF).any(), "bf16 values, so that ARM and x86 agree"


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_on_the_grid_come_back_exactly(bits, factor):
    half = 2 ** (bits - 1)
    integers = np.random.default_rng(0).integers(-half, half, (16, IN))
    integers[:, ::32] = -half
    weight = (integers * np.float32(0.03125)).astype(np.float32)
    np.testing.assert_array_equal(dequantize(compensated(weight, factor, bits, 32), bits, IN), weight)


def test_rows_do_not_depend_on_each_other(factor):
    weight = random(ROWS, IN)
    whole = compensated(weight, factor, 4, 32)
    parts = [compensated(weight[rows], factor, 4, 32) for rows in (slice(0, 5), slice(5, None))]
    for name in ("data", "scales"):
        together = np.concatenate([getattr(part, name) for part in parts])
        assert (getattr(whole, name) == together).mean() > 0.97, (
            "a rounding that falls the other way moves a few behind it"
        )


def test_the_factor_is_that_of_the_damped_inverse(x):
    products = x.T @ x
    damped = products.astype(np.float64) + 0.02 * np.diagonal(products).mean() * np.eye(IN)
    factor = error_factor(products).astype(np.float64)
    np.testing.assert_array_equal(factor, np.triu(factor))
    np.testing.assert_allclose(factor.T @ factor @ damped, np.eye(IN), atol=1e-3)


def test_inputs_that_are_always_zero_do_no_harm():
    weight = random(ROWS, 64)
    factor = error_factor(np.zeros((64, 64), np.float32))
    np.testing.assert_array_equal(compensated(weight, factor, 4, 32).data, quantize(weight, 4, 32).data)


@pytest.mark.parametrize("tied", [True, False])
def test_every_matrix_is_told_of_once_and_in_order(tiny_checkpoint, tied):
    names = []
    with Checkpoint.open(tiny_checkpoint(tie_word_embeddings=tied)) as checkpoint:
        inputs = Inputs(lambda name, factor: names.append((name, factor.shape)))
        hidden_states(checkpoint, [[1, 2, 3], [1, 4]], observer=inputs)
        inputs.finish()
        config = checkpoint.config
    inner = config.n_heads * config.head_dim
    widths = {"q": config.hidden_size, "o": inner, "gate": config.hidden_size, "down": config.ffn_size}
    layers = [
        (f"layers.{layer}.{name}", (width, width)) for layer in range(config.n_layers) for name, width in widths.items()
    ]
    assert names == [*layers, ("embedding" if tied else "lm_head", (config.hidden_size, config.hidden_size))]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_bundle_of_it_is_nearer_to_its_checkpoint(tiny_checkpoint, tmp_path, tied, bits):
    distances = {}
    with Checkpoint.open(tiny_checkpoint(tie_word_embeddings=tied)) as checkpoint:
        for method in ("least_squares", "gptq"):
            told = []
            recipe = Recipe(bits=bits, method=method)
            manifest = export(checkpoint, recipe, tmp_path / method, lambda *one, told=told: told.append(one))
            assert manifest.quantization.method == method
            *_, (stage, done, total) = told
            assert (stage, done) == ("weights", total)
            distances[method] = verify(tmp_path / method, checkpoint, tokens=1024).kl
    assert distances["gptq"] < distances["least_squares"]


def test_a_checkpoint_with_numbers_that_are_not_finite_is_named(tiny_checkpoint, tmp_path):
    folder = Path(shutil.copytree(tiny_checkpoint(), tmp_path / "broken"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][:] = np.nan
    save_file(tensors, folder / "model.safetensors")
    with Checkpoint.open(folder) as checkpoint, pytest.raises(CheckpointError, match="broken"):
        export(checkpoint, Recipe(method="gptq", calibration=tmp_path / "broken" / "config.json"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_a_calibration_text_that_nothing_reads_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="neither method gptq nor an int8 cache"):
        Recipe(calibration=tmp_path / "text")
