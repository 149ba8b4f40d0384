"""Random checkpoints: of the right shapes, readable in both layouts, the same for the same arguments."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.errors import OutputExistsError
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.layouts import expected_shapes
from edge_assistant_export.reference import forward
from edge_assistant_export.safetensors_file import SafetensorsFile
from edge_assistant_export.synth import SHAPES, byte_level_tokenizer, synthesise

TINY = [name for name in SHAPES if name.startswith("tiny")]
# Billions of parameters, as the models' cards give them.
PUBLISHED = {
    "mistral-7b": 7.25,
    "mistral-7b-v0.1": 7.24,
    "ministral-8b": 8.02,
    "nemo": 12.25,
    "mistral-small": 23.57,
    "mixtral-8x7b": 46.70,
    "mixtral-8x22b": 140.63,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_have_the_published_number_of_parameters(name):
    count = sum(math.prod(shape) for shape in expected_shapes(SHAPES[name]).values())
    assert count / 1e9 == pytest.approx(PUBLISHED[name], abs=0.005)


@pytest.mark.parametrize("layout", ["huggingface", "mistral"])
@pytest.mark.parametrize("name", TINY)
def test_what_is_written_is_read_as_that_shape(tmp_path, name, layout):
    with Checkpoint.open(synthesise(name, tmp_path / name, layout=layout)) as checkpoint:
        assert checkpoint.layout == layout
        assert checkpoint.config == SHAPES[name]
        assert checkpoint.instruct == "v7-tekken"
        scores = forward(checkpoint, list(range(40)))
    assert 0.5 < scores.std() < 2


def test_activations_stay_near_one_through_many_layers(tmp_path):
    with Checkpoint.open(synthesise("tiny", tmp_path / "deep", n_layers=40)) as checkpoint:
        assert checkpoint.config.n_layers == 40
        assert 0.5 < forward(checkpoint, list(range(40))).std() < 2


def test_same_arguments_same_bytes(tmp_path):
    one, same = (synthesise("tiny", tmp_path / name) for name in ("one", "same"))
    other = synthesise("tiny", tmp_path / "other", seed=1)
    for file in one.iterdir():
        assert (same / file.name).read_bytes() == file.read_bytes()
    assert (other / "model.safetensors").read_bytes() != (one / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("dtype", "stored"), [("bfloat16", "BF16"), ("float16", "F16"), ("float32", "F32")])
def test_weights_are_stored_as_asked(tmp_path, dtype, stored):
    file = SafetensorsFile(synthesise("tiny", tmp_path / "tiny", dtype=dtype) / "model.safetensors")
    file.close()
    assert {tensor.dtype for tensor in file.tensors.values()} == {stored}


def test_memory_is_that_of_the_pool_and_rows_do_not_repeat(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_assistant_export.synth._POOL", 10_007)
    byte_level_tokenizer(512)  # what tokenizers keeps is not counted
    tracemalloc.start()
    try:
        path = synthesise("tiny", tmp_path / "tiny", n_layers=20, dtype="float32", shard_bytes=1_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(file.stat().st_size for file in path.glob("*.safetensors")) > 2_000_000
    assert peak < 1_000_000
    with Checkpoint.open(path) as checkpoint:
        embedding = checkpoint.tensor("embedding")
        assert len(np.unique(embedding, axis=0)) == len(embedding)
        assert not np.array_equal(checkpoint.tensor("layers.0.gate"), checkpoint.tensor("layers.0.up"))


@pytest.mark.parametrize("layout", ["huggingface", "mistral"])
def test_a_mixture_has_its_experts(tmp_path, layout):
    with Checkpoint.open(synthesise("tiny-moe", tmp_path / "mixtral", layout=layout)) as checkpoint:
        assert (checkpoint.config.family, checkpoint.config.n_experts_per_token) == ("mixtral", 2)
        assert checkpoint.shape("layers.1.router") == (4, 64)
        assert checkpoint.shape("layers.1.experts.3.gate") == (96, 64)
        assert checkpoint.shape("layers.1.experts.3.down") == (64, 96)
        assert not np.array_equal(
            checkpoint.tensor("layers.0.experts.0.up"), checkpoint.tensor("layers.0.experts.1.up")
        )


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputExistsError):
        synthesise("tiny", tmp_path / "mine")


@pytest.mark.parametrize("size", [512, 4000])
@given(text=st.text(max_size=30))
def test_the_tokenizer_has_that_many_ids_and_gives_any_text_back(size, text):
    tokenizer = TOKENIZERS[size]
    assert sorted(tokenizer.get_vocab().values()) == list(range(size))
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


def make_tokenizer(size):
    tokenizer = byte_level_tokenizer(size)
    tokenizer.encode_special_tokens = True
    return tokenizer


TOKENIZERS = {size: make_tokenizer(size) for size in (512, 4000)}
