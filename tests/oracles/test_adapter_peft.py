"""A bundle exported with an adapter is what PEFT's own merge of that adapter computes, in float32, to 1e-4."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine, SamplingParams
from edge_assistant.errors import UnsupportedAdapterError
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.reference import forward
from edge_assistant_export.synth import synthesise
from edge_assistant_export.write import export

torch = pytest.importorskip("torch", reason="runs in the environment of transformers: make test-oracles")
transformers = pytest.importorskip("transformers", reason="runs in an environment of its own: make test-oracles")
peft = pytest.importorskip("peft", reason="runs in an environment of its own: make test-oracles")

TOLERANCE = 1e-4
IDS = np.random.default_rng(1).integers(0, 270, 40).tolist()
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
CONFIGS = {
    "attention": {"target_modules": ATTENTION},
    "all": {"target_modules": "all-linear", "lora_alpha": 12},
    "default": {},
    "regex": {"target_modules": r"model\.layers\.1\.mlp\.(gate|up)_proj"},
    "stabilised": {"target_modules": ATTENTION, "use_rslora": True},
    "patterns": {
        "target_modules": "all-linear",
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, "q_proj": 8, r"^model\.layers\.0\.mlp\.(up|down)_proj": 3},
        "alpha_pattern": {"down_proj": 1, "self_attn.q_proj": 20},
        "use_rslora": True,
    },
    "layers": {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1], "exclude_modules": ["q_proj"]},
    "head": {"target_modules": [*ATTENTION, "lm_head", "embed_tokens"]},
    "orthogonal": {"target_modules": ATTENTION, "init_lora_weights": "orthogonal"},
}


def model_at(path):
    [name] = json.loads((path / "config.json").read_text())["architectures"]
    kind = getattr(transformers, name)
    return kind.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")


def tune(path, out, dtype=torch.float32, **config) -> Path:
    """Let PEFT wrap the model, set every factor of the adapter at random as training would, and save it."""
    torch.manual_seed(0)
    model = peft.get_peft_model(
        model_at(path), peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM"} | config)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
                parameter.data = parameter.data.to(dtype)
    model.save_pretrained(out)
    return out


def merged_by_peft(path, adapter):
    return peft.PeftModel.from_pretrained(model_at(path), adapter).merge_and_unload().eval()


def logits_of(model) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0].numpy()


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_bundle_computes_what_the_merged_model_does(tmp_path, config):
    path = synthesise("tiny", tmp_path / "checkpoint", dtype="float32")
    adapter = tune(path, tmp_path / "adapter", **config)
    theirs = merged_by_peft(path, adapter)
    expected = logits_of(theirs)
    assert np.abs(expected - logits_of(model_at(path))).max() > 0.1
    with Checkpoint.open(path, adapter=adapter) as checkpoint:
        np.testing.assert_allclose(forward(checkpoint, IDS), expected, atol=TOLERANCE)
        export(checkpoint, Recipe(bits=32), tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    settings = EngineSettings(kv_cache_bytes=bundle.manifest.cache_size.of(100))
    with Engine.load(bundle, settings) as engine:
        np.testing.assert_allclose(engine.score(IDS), expected, atol=TOLERANCE)
        ours = list(engine.generate(IDS, SamplingParams(24)))
    greedy = transformers.GenerationConfig(max_new_tokens=24, do_sample=False, pad_token_id=0)
    [whole] = theirs.generate(torch.tensor([IDS]), greedy)
    assert ours == whole[len(IDS) :].tolist()


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_base_weights_that_are_saved_with_the_adapter_take_the_model_s_place(tmp_path):
    path = synthesise("tiny", tmp_path / "checkpoint", dtype="float32")
    adapter = tune(path, tmp_path / "adapter", target_modules=["lm_head", "embed_tokens"])
    tensors = load_file(adapter / "adapter_model.safetensors")
    saved = [name for name in tensors if name.endswith(".base_layer.weight")]
    assert len(saved) == 2
    save_file(tensors | {name: -2 * tensors[name] for name in saved}, adapter / "adapter_model.safetensors")
    with Checkpoint.open(path, adapter=adapter) as checkpoint:
        np.testing.assert_allclose(forward(checkpoint, IDS), logits_of(merged_by_peft(path, adapter)), atol=TOLERANCE)


def test_an_adapter_of_a_model_that_sees(tmp_path):
    """Its vision part's matrices end alike, so PEFT wraps them too; the bundle is of the language part."""
    path = synthesise("tiny", tmp_path / "checkpoint", dtype="float32")
    seeing = tmp_path / "seeing"
    text = model_at(path).config.to_dict()
    vision = {"model_type": "pixtral", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "head_dim": 16, "image_size": 16, "patch_size": 8}
    config = transformers.Mistral3Config(text_config=text, vision_config=vision, tie_word_embeddings=False)
    torch.manual_seed(1)
    transformers.Mistral3ForConditionalGeneration(config).save_pretrained(seeing)
    (seeing / "tokenizer.json").write_bytes((path / "tokenizer.json").read_bytes())
    adapter = tune(seeing, tmp_path / "adapter", target_modules=ATTENTION)
    assert any("vision_tower" in name for name in load_file(adapter / "adapter_model.safetensors"))
    theirs = merged_by_peft(seeing, adapter)
    with Checkpoint.open(seeing, adapter=adapter) as checkpoint:
        np.testing.assert_allclose(forward(checkpoint, IDS), logits_of(theirs), atol=TOLERANCE)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_narrow_adapter(tmp_path, dtype):
    path = synthesise("tiny", tmp_path / "checkpoint", dtype="float32")
    adapter = tune(path, tmp_path / "adapter", getattr(torch, dtype), target_modules=ATTENTION)
    # PEFT reads factors as float32 unless it is told not to.
    with Checkpoint.open(path, adapter=adapter) as checkpoint:
        np.testing.assert_allclose(forward(checkpoint, IDS), logits_of(merged_by_peft(path, adapter)), atol=TOLERANCE)


VARIANTS = {
    "use_dora": True,
    "bias": "all",
    "modules_to_save": ["lm_head"],
    "trainable_token_indices": [7, 8],
    "layer_replication": [[0, 2], [1, 2]],
    "init_lora_weights": "pissa",
    "use_qalora": True,
    "alora_invocation_tokens": [5],
    "target_parameters": ["mlp.gate_proj.weight"],
}


@pytest.mark.filterwarnings("ignore")  # PEFT warns of most of these itself
@pytest.mark.parametrize(("key", "value"), VARIANTS.items(), ids=VARIANTS)
def test_variants_that_peft_really_saves_are_refused(tmp_path, key, value):
    path = synthesise("tiny", tmp_path / "checkpoint", dtype="float32")
    adapter = tune(path, tmp_path / "adapter", **{"target_modules": ["q_proj"], key: value})
    assert json.loads((adapter / "adapter_config.json").read_text())[key]
    with pytest.raises(UnsupportedAdapterError, match=key):
        Checkpoint.open(path, adapter=adapter)


@pytest.mark.filterwarnings("ignore")
def test_another_method_is_refused(tmp_path):
    path = synthesise("tiny", tmp_path / "checkpoint", dtype="float32")
    peft.get_peft_model(model_at(path), peft.LoHaConfig(target_modules=["q_proj"])).save_pretrained(
        tmp_path / "adapter"
    )
    with pytest.raises(UnsupportedAdapterError, match="peft_type 'LOHA'"):
        Checkpoint.open(path, adapter=tmp_path / "adapter")


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_with_added_tokens_is_refused(tmp_path):
    path = synthesise("tiny", tmp_path / "checkpoint", dtype="float32")
    model = model_at(path)
    model.resize_token_embeddings(model.config.vocab_size + 2)
    tuned = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    tuned.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    with pytest.raises(UnsupportedAdapterError, match="an embedding saved whole"):
        Checkpoint.open(path, adapter=tmp_path / "adapter")
