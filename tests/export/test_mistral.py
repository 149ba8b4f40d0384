"""The exported graph against the numpy reference, over the corners of the architecture and of storing weights."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnxruntime as ort
import pytest
from safetensors.numpy import load_file, save_file

from edge_assistant.bundle import REWINDABLE
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine, SamplingParams
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.quantize import dequantize, n_blocks, quantize
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.reference import forward
from edge_assistant_export.weights import plan_weights

CORNERS = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "heads wider than hidden": {"head_dim": 32},
    "heads the kernel cannot rotate": {"head_dim": 24},
    "sizes that no block divides": {"hidden_size": 80, "num_attention_heads": 5, "num_key_value_heads": 1},
    "feed-forward of no whole block": {"intermediate_size": 172},
    "a head of keys for every head of queries": {"num_key_value_heads": 4},
    "sliding window": {"sliding_window": 9},
    "sliding window, heads the kernel cannot rotate": {"sliding_window": 9, "head_dim": 8},
    "a window in one layer of two": {"sliding_window": 9, "layer_types": ["full_attention", "sliding_attention"]},
    "stretched positions": {
        "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "beta_fast": 2.0}
    },
    "stretched positions, heads the kernel cannot rotate": {
        "head_dim": 24,
        "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16},
    },
    "one layer": {"num_hidden_layers": 1},
}
IDS = [1, *np.random.default_rng(0).integers(14, 270, 39).tolist()]
# Products of a few hundred float32 numbers of order one, summed in another order.
ROUNDING = 2e-4


def logits(bundle) -> np.ndarray:
    with Engine.load(bundle, EngineSettings(threads=1)) as engine:
        return engine.score(IDS)


def reference(path) -> np.ndarray:
    with Checkpoint.open(path) as checkpoint:
        return forward(checkpoint, IDS)


def rounded_to_its_grid(path, folder, bits, block_size, zero_points):
    """Write a copy of a checkpoint whose weights are what a board reads from the quantised ones."""
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(path / name, folder)
    tensors = load_file(path / "model.safetensors")
    for name, weight in tensors.items():
        if weight.ndim == 2:
            packed = quantize(weight, bits, block_size, zero_points=zero_points)
            tensors[name] = np.ascontiguousarray(dequantize(packed, bits, weight.shape[1]))
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("shape", CORNERS.values(), ids=CORNERS)
def test_float32_export_is_the_reference(shape, tiny_checkpoint, export_bundle):
    path = tiny_checkpoint(**shape)
    np.testing.assert_allclose(logits(export_bundle(path, bits=32)), reference(path), atol=ROUNDING)


@pytest.mark.parametrize("shape", CORNERS.values(), ids=CORNERS)
@pytest.mark.parametrize(
    ("bits", "block_size", "zero_points"),
    [(4, 32, False), (4, 128, False), (8, 64, False), (4, 32, True), (4, 128, True), (8, 32, True)],
)
def test_quantised_export_is_the_reference_of_the_rounded_weights(
    shape, bits, block_size, zero_points, tiny_checkpoint, export_bundle, tmp_path
):
    path = tiny_checkpoint(**shape)
    bundle = export_bundle(path, bits=bits, block_size=block_size, zero_points=zero_points, accuracy_level=0)
    rounded = rounded_to_its_grid(path, tmp_path / "rounded", bits, block_size, zero_points)
    np.testing.assert_allclose(logits(bundle), reference(rounded), atol=ROUNDING)


def test_a_trained_model_writes_the_same_story(stories, export_bundle):
    params = SamplingParams(max_tokens=200)
    with Engine.load(export_bundle(stories, bits=32), EngineSettings(threads=1)) as engine:
        written = list(engine.generate([1], params))
    with Checkpoint.open(stories) as checkpoint:
        likeliest = forward(checkpoint, [1, *written[:-1]]).argmax(axis=1)
    assert written == likeliest.tolist()
    assert len(written) == 200


@pytest.mark.parametrize("bits", [4, 8])
def test_computing_in_int8_stays_near(bits, tiny_checkpoint, export_bundle):
    path = tiny_checkpoint()
    exact, fast = (logits(export_bundle(path, bits=bits, accuracy_level=level)) for level in (0, 4))
    assert 0 < np.linalg.norm(fast - exact) / np.linalg.norm(exact) < 0.05


def test_a_finer_head_is_nearer(tiny_checkpoint, export_bundle):
    path = tiny_checkpoint(tie_word_embeddings=True)
    coarse, fine = (logits(export_bundle(path, bits=4, eight_bits=names)) for names in ((), ("embedding",)))
    expected = reference(path)
    assert np.square(fine - expected).mean() < np.square(coarse - expected).mean()


def test_a_tied_embedding_lies_once_in_the_file(tiny_checkpoint, export_bundle):
    sizes = {
        tied: export_bundle(tiny_checkpoint(tie_word_embeddings=tied)).manifest.files["model.onnx.data"].bytes
        for tied in (True, False)
    }
    head = 270 * 64 // 2 + 270 * 2 * 4
    assert sizes[False] - sizes[True] >= head


def test_prompts_of_two_rows_may_differ_in_length(tiny_checkpoint, export_bundle):
    for shape in ({}, {"head_dim": 24}):
        bundle = export_bundle(tiny_checkpoint(**shape), bits=32)
        session = ort.InferenceSession(bundle.graph_path, providers=["CPUExecutionProvider"])
        whole = {name.name: name for name in session.get_inputs()}
        heads, size = bundle.manifest.architecture.n_kv_heads, bundle.manifest.architecture.head_dim
        empty = {name: np.zeros((2, heads, 0, size), np.float32) for name in whole if name.startswith("past")}
        short = 7
        mask = np.ones((2, len(IDS)), np.int64)
        mask[1, short:] = 0
        feed = {"input_ids": np.array([IDS, IDS]), "attention_mask": mask, **empty}
        options = ort.RunOptions()
        options.log_severity_level = 3
        feed["logits_to_keep"] = np.array(len(IDS))
        (both,) = session.run(["logits"], feed, options)
        np.testing.assert_allclose(both[1, :short], both[0, :short], atol=ROUNDING)


def test_the_default_is_the_last_position(tiny_checkpoint, export_bundle):
    bundle = export_bundle(tiny_checkpoint(), bits=32)
    session = ort.InferenceSession(bundle.graph_path, providers=["CPUExecutionProvider"])
    feed = {name.name: np.zeros((1, 2, 0, 16), np.float32) for name in session.get_inputs() if "past" in name.name}
    feed |= {"input_ids": np.array([IDS]), "attention_mask": np.ones((1, len(IDS)), np.int64)}
    (last,) = session.run(["logits"], feed)
    assert last.shape == (1, 1, 270)
    np.testing.assert_allclose(last[0, 0], logits(bundle)[-1], atol=ROUNDING)


def test_the_graph_itself_is_small(tiny_checkpoint, export_bundle):
    bundle = export_bundle(tiny_checkpoint(), bits=32)
    assert bundle.manifest.files["model.onnx.data"].bytes > 10 * bundle.graph_path.stat().st_size


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_every_matrix_is_planned_once(bits, tiny_checkpoint):
    with Checkpoint.open(tiny_checkpoint()) as checkpoint:
        config = checkpoint.config
        weights = plan_weights(config, Recipe(bits=bits).quantization(config))
        planned = [name for matrix in weights.matrices for part in matrix.parts for name in part.names]
        assert len(planned) == len(set(planned)) == 2 + 7 * config.n_layers
        for matrix in weights.matrices:
            assert matrix.n_rows == sum(checkpoint.shape(name)[0] for part in matrix.parts for name in part.names)
            blocks = n_blocks(matrix.row_size, 32)
            expected = matrix.n_rows * (4 * matrix.row_size if bits == 32 else blocks * 32 * bits // 8)
            assert matrix.data.nbytes == expected


def test_neighbours_are_told_the_same_sizes(tiny_checkpoint, export_bundle):
    bundle = export_bundle(tiny_checkpoint(head_dim=32))
    config = json.loads((bundle.path / "config.json").read_text())
    decoder = json.loads((bundle.path / "genai_config.json").read_text())["model"]["decoder"]
    assert config["head_dim"] == decoder["head_size"] == bundle.manifest.architecture.head_dim == 32
    assert config["num_key_value_heads"] == decoder["num_key_value_heads"] == 2


@pytest.mark.parametrize(
    ("kinds", "layers"), [({}, [0, 1]), ({"layer_types": ["full_attention", "sliding_attention"]}, [1])]
)
def test_neighbours_are_told_which_layers_are_bounded(kinds, layers, tiny_checkpoint, export_bundle):
    path = tiny_checkpoint(sliding_window=9, max_position_embeddings=4096, **kinds)
    decoders = {}
    for kind in ("bounded", "full"):
        bundle = export_bundle(path, bits=32, window_cache=kind)
        assert bundle.manifest.cache.window == kind
        decoders[kind] = json.loads((bundle.path / "genai_config.json").read_text())["model"]["decoder"]
    told = decoders["bounded"].pop("sliding_window")
    assert (told["window_size"], told["layers"], told["cache_slack"]) == (9, layers, REWINDABLE)
    assert decoders["bounded"] == decoders["full"]


def test_a_window_as_long_as_the_context_bounds_nothing(tiny_checkpoint, export_bundle):
    path = tiny_checkpoint(sliding_window=64)
    short, long = (export_bundle(path, bits=32, sequence_length=length) for length in (64, 65))
    assert (short.manifest.cache.window, long.manifest.cache.window) == (None, "bounded")
    np.testing.assert_allclose(logits(short), logits(long), atol=ROUNDING)
