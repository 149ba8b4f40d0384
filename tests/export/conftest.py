"""What the tests of the exporter share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")  # a busy machine is no fault of the code

# The names of Mistral's own layout, as its reference code gives them, for those of Hugging Face.
RENAMED = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "block_sparse_moe": "feed_forward",
    "post_attention_layernorm": "ffn_norm",
    "input_layernorm": "attention_norm",
    "model.layers.": "layers.",
}
PARAMS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "head_dim": "head_dim",
    "hidden_dim": "intermediate_size",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
    "vocab_size": "vocab_size",
    "sliding_window": "sliding_window",
    "tied_embeddings": "tie_word_embeddings",
    "max_position_embeddings": "max_position_embeddings",
}

# As PEFT 0.21 writes it.
ADAPTER_CONFIG = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": None,
    "base_model_name_or_path": "tiny/base",
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 8,
    "lora_bias": False,
    "lora_dropout": 0.1,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "r": 4,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
}


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    """Return a checkpoint of its own, to be broken."""
    return Path(shutil.copytree(tiny_checkpoint(), tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def mistral_layout() -> Callable[[Path, Path], Path]:
    """Return a function that writes a checkpoint of Hugging Face's layout once more, in Mistral's own."""
    from safetensors.numpy import load_file, save_file

    def rewrite(checkpoint: Path, out: Path) -> Path:
        config = json.loads((checkpoint / "config.json").read_text())
        tensors = {}
        for name, tensor in load_file(checkpoint / "model.safetensors").items():
            stored = name
            for old, new in RENAMED.items():
                stored = stored.replace(old, new)
            tensors[stored] = (
                _interleave(tensor, config["head_dim"]) if stored.endswith(("wq.weight", "wk.weight")) else tensor
            )
        out.mkdir()
        save_file(tensors, out / "consolidated.safetensors")
        params = {new: config[old] for new, old in PARAMS.items()}
        if "num_local_experts" in config:
            params["moe"] = {"num_experts": config["num_local_experts"]}
            params["moe"]["num_experts_per_tok"] = config["num_experts_per_tok"]
        (out / "params.json").write_text(json.dumps(params))
        (out / "tokenizer.json").write_bytes((checkpoint / "tokenizer.json").read_bytes())
        return out

    return rewrite


@pytest.fixture(scope="session")
def lora_adapter() -> Callable[..., Path]:
    """Return a function that writes an adapter for modules of a checkpoint, all of its layers' where none are named.

    `ranks` are those of modules whose rank is not r; other keywords replace keys of `ADAPTER_CONFIG`.
    """
    return _write_adapter


@pytest.fixture
def adapter(folder, tmp_path) -> Path:
    """Return an adapter of its own, to be broken, for all matrices of the layers of `folder`."""
    return _write_adapter(tmp_path / "adapter", folder)


def _interleave(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """Put channel j of every head at 2j and channel j + head_dim/2 at 2j + 1, one row at a time."""
    out = np.empty_like(rows)
    for number, row in enumerate(rows):
        head, channel = divmod(number, head_dim)
        half, j = divmod(channel, head_dim // 2)
        out[head * head_dim + 2 * j + half] = row
    return out


def _write_adapter(path, checkpoint, modules=None, ranks=None, dtype=np.float32, **config) -> Path:
    from safetensors.numpy import load_file, save_file

    path.mkdir()
    weights = load_file(checkpoint / "model.safetensors")
    random = np.random.default_rng(7)
    tensors = {}
    projections = [name.removesuffix(".weight") for name in weights if name.endswith("_proj.weight")]
    for module in projections if modules is None else modules:
        n_rows, row_size = weights[f"{module}.weight"].shape
        rank = (ranks or {}).get(module, config.get("r", ADAPTER_CONFIG["r"]))
        a, b = random.standard_normal((rank, row_size)), random.standard_normal((n_rows, rank)) / row_size
        name = f"base_model.model.{module}"
        if module == "model.embed_tokens":
            tensors |= {f"{name}.lora_embedding_A": b.T, f"{name}.lora_embedding_B": a.T}
        else:
            tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
    save_file(
        {name: np.ascontiguousarray(tensor, dtype) for name, tensor in tensors.items()},
        path / "adapter_model.safetensors",
    )
    (path / "adapter_config.json").write_text(json.dumps(ADAPTER_CONFIG | config))
    return path
