"""GPTQ through the layers: each matrix is written once and in order, and the bundle is nearer to its checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge_assistant.errors import CheckpointError
from edge_assistant_export import sequential
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.effort import gptq
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.reference import Observer, hidden_states
from edge_assistant_export.sequential import Mended, Passing, Sequential
from edge_assistant_export.verify import verify
from edge_assistant_export.weights import plan_weights
from edge_assistant_export.write import export

TEXTS = [[1, 2, 3], [1, 4], [1, 5, 6, 7, 8]]


class Noisy:
    """A checkpoint whose matrices are a little off, as rounding leaves them."""

    def __init__(self, checkpoint):
        self.config, self._checkpoint = checkpoint.config, checkpoint

    def tensor(self, name, rows=None):
        tensor = self._checkpoint.tensor(name, rows)
        return tensor + np.float32(0.01) * np.sin(np.arange(tensor.size, dtype=np.float32)).reshape(tensor.shape)


class Inputs(Observer):
    """Keeps all that matrices meet, by name."""

    def __init__(self):
        self.seen = {}

    def inputs(self, name, x, residual=None):
        self.seen[name] = x.copy()


@pytest.mark.parametrize("tied", [True, False])
def test_every_matrix_is_written_once_and_in_order(tiny_checkpoint, tied):
    names = []
    with Checkpoint.open(tiny_checkpoint(tie_word_embeddings=tied)) as checkpoint:
        observer = Sequential(checkpoint, lambda name, prepare: names.append((name, prepare().products.damped.shape)))
        hidden_states(checkpoint, [*TEXTS, *TEXTS], observer=observer)
        config = checkpoint.config
    inner = config.n_heads * config.head_dim
    widths = {"q": config.hidden_size, "o": inner, "gate": config.hidden_size, "down": config.ffn_size}
    layers = [
        (f"layers.{layer}.{name}", (width, width)) for layer in range(config.n_layers) for name, width in widths.items()
    ]
    head = [] if tied else [("lm_head", (config.hidden_size, config.hidden_size))]
    assert names == layers + head


@pytest.mark.parametrize("mixture", [{}, {"num_local_experts": 4, "num_experts_per_tok": 2}], ids=["dense", "mixture"])
def test_each_half_is_its_own_model(tiny_checkpoint, mixture, monkeypatch):
    """Both halves meet what a run of each model alone meets; in a mixture as long as routes agree."""
    met = {}
    monkeypatch.setattr(sequential, "Mended", lambda found, exact, *_: (found.copy(), exact.copy()))
    with Checkpoint.open(tiny_checkpoint(**mixture)) as checkpoint:
        noisy = Noisy(checkpoint)
        observer = Sequential(noisy, lambda name, prepare: met.__setitem__(name, prepare()))
        hidden_states(checkpoint, [*TEXTS, *TEXTS], observer=observer)
        alone = Inputs()
        hidden_states(checkpoint, TEXTS, observer=alone)
        norms = Inputs()
        hidden_states(_WithNormsOf(noisy, checkpoint), TEXTS, observer=norms)
    for name, (found, exact) in met.items():
        np.testing.assert_allclose(exact, alone.seen[name], atol=1e-5)
        if not mixture:
            np.testing.assert_allclose(found, norms.seen[name], atol=1e-5)
        assert found.shape == exact.shape


@pytest.mark.parametrize("n", [10, 100], ids=["more channels than positions", "fewer"])
@pytest.mark.parametrize("leads", [False, True])
def test_the_aim_is_the_best_answer_to_what_is_missing(n, leads):
    """W + R^T x' H^-1 for R = 0.5 (x W^T - x' W^T + h - h'), whichever product is made first."""
    rng = np.random.default_rng(0)
    found, weight = (rng.standard_normal(shape, np.float32) for shape in ((n, 24), (9, 24)))
    exact = found + 0.3 * rng.standard_normal(found.shape, np.float32)
    lead = rng.standard_normal((n, 9), np.float32) if leads else None
    rows = slice(2, 7)
    quantizer = Mended(found, exact, lead)
    missing = (exact - found) @ weight[rows].T + (lead[:, rows] if leads else 0)
    pull = 0.5 * (missing.T @ found).astype(np.float64)
    expected = weight[rows] + np.linalg.solve(quantizer.products.damped.astype(np.float64), pull.T).T
    np.testing.assert_allclose(quantizer.aim(weight[rows], rows), expected, atol=2e-4)


def test_products_in_parts_tell_their_effort(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(sequential, "_POSITIONS", 2)
    told = []
    with Checkpoint.open(tiny_checkpoint()) as checkpoint:
        found = hidden_states(checkpoint, TEXTS, observer=Passing(told.append))
        for one, other in zip(found, hidden_states(checkpoint, TEXTS), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
        recipe = Recipe()
        weights = plan_weights(checkpoint.config, recipe.quantization(checkpoint.config))
        foretold = gptq(weights, checkpoint.config, sum(map(len, TEXTS)))
    assert 2 * sum(told) == sum(one.passing for one in foretold.values())


class _WithNormsOf:
    """Matrices of one model, norms of another: norms are not rounded."""

    def __init__(self, model, other):
        self.config, self._model, self._other = model.config, model, other

    def tensor(self, name, rows=None):
        return (self._other if name.endswith("norm") else self._model).tensor(name, rows)


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
