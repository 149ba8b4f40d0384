"""The numpy reference is transformers' Mistral and Mixtral in float32, to 1e-4."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.reference import forward, forward_all
from edge_assistant_export.sample import sample
from edge_assistant_export.synth import synthesise

torch = pytest.importorskip("torch", reason="runs in the environment of transformers: make test-oracles")
transformers = pytest.importorskip("transformers", reason="runs in an environment of its own: make test-oracles")

TOLERANCE = 1e-4
IDS = np.random.default_rng(1).integers(0, 270, 60).tolist()
SHAPES = [
    {},
    {"head_dim": 32},
    {"head_dim": 8, "num_key_value_heads": 1},
    {"num_key_value_heads": 4},
    {"sliding_window": 8},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": True, "sliding_window": 3, "head_dim": 24},
    {"num_local_experts": 4, "num_experts_per_tok": 2},
    {"num_local_experts": 5, "num_experts_per_tok": 3, "sliding_window": 8},
]


def their_logits(path, texts) -> list[np.ndarray]:
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    with torch.no_grad():
        return [model(torch.tensor([text])).logits[0].numpy() for text in texts]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_small_random_models(tiny_checkpoint, shape):
    path = tiny_checkpoint(**shape)
    [expected] = their_logits(path, [IDS])
    with Checkpoint.open(path) as checkpoint:
        np.testing.assert_allclose(forward(checkpoint, IDS), expected, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sharded_checkpoints_of_narrow_types(tmp_path, dtype):
    path = synthesise("tiny", tmp_path / "tiny", dtype=dtype, shard_bytes=50_000)
    [expected] = their_logits(path, [IDS])
    with Checkpoint.open(path) as checkpoint:
        np.testing.assert_allclose(forward(checkpoint, IDS), expected, atol=TOLERANCE)


ABSENT = {
    "tiny": ["head_dim", "sliding_window", "rope_theta", "rms_norm_eps", "tie_word_embeddings"],
    "tiny-moe": ["rope_theta", "rms_norm_eps", "sliding_window", "num_experts_per_tok", "tie_word_embeddings"],
}


@pytest.mark.parametrize(("shape", "key"), [(shape, key) for shape, keys in ABSENT.items() for key in keys])
def test_absent_keys_mean_the_same(tmp_path, shape, key):
    path = synthesise(shape, tmp_path / "tiny", dtype="float32")
    config = json.loads((path / "config.json").read_text())
    del config[key]
    (path / "config.json").write_text(json.dumps(config))
    [expected] = their_logits(path, [IDS])
    with Checkpoint.open(path) as checkpoint:
        np.testing.assert_allclose(forward(checkpoint, IDS), expected, atol=TOLERANCE)


def test_a_trained_model_on_its_own_texts(stories):
    with Checkpoint.open(stories) as checkpoint:
        texts = sample(checkpoint, 4, 200)
        found = list(forward_all(checkpoint, texts))
    for ours, theirs in zip(found, their_logits(stories, texts), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)
