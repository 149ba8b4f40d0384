"""The two layouts in which Mistral's models are published, as tables: file names, tensor names, configuration.

                 Hugging Face                             Mistral's own
    config       config.json                              params.json
    weights      model*.safetensors                       consolidated*.safetensors
    query rows   rotary pairs (j, j + head_dim/2)         rotary pairs (2j, 2j + 1)

Both are read into one `ModelConfig` and one set of canonical names: `embedding`, `norm`, `lm_head` and, for layer i,
`layers.{i}.` + attention_norm, q, k, v, o, ffn_norm, and gate, up, down; of a mixture router, and gate, up, down
behind `experts.{e}.`. What the exporter does not compute (stretched rotary positions, quantised weights, layers that
differ) is refused here, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal

from edge_assistant.bundle import Architecture as ModelConfig
from edge_assistant.errors import CheckpointError, UnsupportedArchitectureError

LayoutName = Literal["huggingface", "mistral"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one layout keeps what."""

    name: LayoutName
    config_file: str
    index_file: str
    """Says in which shard each tensor lies; absent where there is one file."""
    weights: str
    """The pattern of the files of weights."""
    tensors: Mapping[str, str]
    """Tensors of the whole model, by canonical name."""
    layer_tensors: Mapping[str, str]
    """Tensors that each layer has, by canonical name, with {i} for its number."""
    dense_tensors: Mapping[str, str]
    """Those of its feed-forward part."""
    mixture_tensors: Mapping[str, str]
    """Those of a mixture instead, {e} being the number of an expert."""
    interleaved_rotary: bool
    """Whether rows of q and k that rotate together are neighbours."""
    read_config: Callable[[Path, Mapping[str, Any]], ModelConfig]

    def tensor_names(self, config: ModelConfig) -> dict[str, str]:
        """Return the layout's own name of every tensor that a model has, by canonical name."""
        names = {
            name: stored for name, stored in self.tensors.items() if name != "lm_head" or not config.tied_embedding
        }
        experts = range(config.n_experts or 1)
        of_layer = {**self.layer_tensors, **(self.mixture_tensors if config.n_experts else self.dense_tensors)}
        for i, (name, stored), e in product(range(config.n_layers), of_layer.items(), experts):
            names[f"layers.{i}.{name.format(e=e)}"] = stored.format(i=i, e=e)
        return names


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape [out, in] of every tensor that a model has, by canonical name."""
    hidden, ffn, vocab = config.hidden_size, config.ffn_size, config.vocab_size
    q_size, kv_size = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"embedding": (vocab, hidden), "norm": (hidden,)}
    if not config.tied_embedding:
        shapes["lm_head"] = (vocab, hidden)
    layer: dict[str, tuple[int, ...]] = {
        "attention_norm": (hidden,),
        "q": (q_size, hidden),
        "k": (kv_size, hidden),
        "v": (kv_size, hidden),
        "o": (hidden, q_size),
        "ffn_norm": (hidden,),
    }
    feed_forward = {"gate": (ffn, hidden), "up": (ffn, hidden), "down": (hidden, ffn)}
    if config.n_experts:
        layer["router"] = (config.n_experts, hidden)
        for e in range(config.n_experts):
            layer |= {f"experts.{e}.{name}": shape for name, shape in feed_forward.items()}
    else:
        layer |= feed_forward
    return shapes | {f"layers.{i}.{name}": shape for i in range(config.n_layers) for name, shape in layer.items()}


def _read_huggingface(path: Path, whole: Mapping[str, Any]) -> ModelConfig:
    """Read config.json; keys that are absent have the defaults of transformers' MistralConfig, or MixtralConfig."""
    config = {**whole, **whole.get("text_config", {})}
    for model_type in (whole.get("model_type"), config.get("model_type")):
        if model_type not in {"mistral", "mistral3", "mixtral"}:
            raise UnsupportedArchitectureError(path, f"model_type {model_type!r}")
    mixture = config["model_type"] == "mixtral"
    if mixture:
        config = {**_MIXTRAL_DEFAULTS, **config}
    _refuse(path, config, ("quantization_config", "attention_bias", "mlp_bias"))
    if (activation := config.get("hidden_act", "silu")) != "silu":
        raise UnsupportedArchitectureError(path, f"hidden_act {activation!r}")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise UnsupportedArchitectureError(
            path, f"a rotary embedding of type {rope.get('rope_type', rope.get('type'))!r}"
        )
    n_heads, hidden_size = _number(path, config, "num_attention_heads"), _number(path, config, "hidden_size")
    return _model_config(
        path,
        n_layers=_number(path, config, "num_hidden_layers"),
        hidden_size=hidden_size,
        n_heads=n_heads,
        n_kv_heads=_number(path, config, "num_key_value_heads"),
        head_dim=config.get("head_dim") or hidden_size // n_heads,
        ffn_size=_number(path, config, "intermediate_size"),
        vocab_size=_number(path, config, "vocab_size"),
        rope_theta=rope.get("rope_theta") or config.get("rope_theta", 10_000.0),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        sliding_window=config.get("sliding_window", 4096),
        tied_embedding=whole.get("tie_word_embeddings", config.get("tie_word_embeddings", False)),
        max_positions=config.get("max_position_embeddings", 131_072),
        n_experts=_number(path, config, "num_local_experts") if mixture else 0,
        n_experts_per_token=_number(path, config, "num_experts_per_tok") if mixture else 0,
    )


# Where transformers' MixtralConfig does not agree with its MistralConfig.
_MIXTRAL_DEFAULTS: Final[Mapping[str, Any]] = {
    "rope_theta": 1_000_000.0,
    "rms_norm_eps": 1e-5,
    "sliding_window": None,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}


def _read_mistral(path: Path, params: Mapping[str, Any]) -> ModelConfig:
    """Read params.json, whose keys are those of mistral-inference's TransformerArgs.

    It seldom says how long a context may be: 32,768 is what every model without that key was trained for.
    """
    _refuse(path, params, ("quantization", "yarn", "llama_4_scaling", "q_lora_rank", "lora", "use_biases"))
    if (model_type := params.get("model_type", "transformer")) != "transformer":
        raise UnsupportedArchitectureError(path, f"model_type {model_type!r}")
    if (activation := params.get("activation", "silu")) != "silu":
        raise UnsupportedArchitectureError(path, f"activation {activation!r}")
    window = params.get("sliding_window")
    if isinstance(window, list):
        if len(set(window)) != 1:
            raise UnsupportedArchitectureError(path, f"a sliding_window that differs by layer, {window},")
        window = window[0]
    moe = params.get("moe") or {}
    return _model_config(
        path,
        n_layers=_number(path, params, "n_layers"),
        hidden_size=_number(path, params, "dim"),
        n_heads=_number(path, params, "n_heads"),
        n_kv_heads=_number(path, params, "n_kv_heads"),
        head_dim=_number(path, params, "head_dim"),
        ffn_size=_number(path, params, "hidden_dim"),
        vocab_size=_number(path, params, "vocab_size"),
        # Mistral 7B v0.1, the one with a window, came before the key and before its later default.
        rope_theta=params.get("rope_theta") or (1_000_000.0 if window is None else 10_000.0),
        norm_eps=params.get("norm_eps", 1e-5),
        sliding_window=window,
        tied_embedding=params.get("tied_embeddings", False),
        max_positions=params.get("max_position_embeddings") or params.get("max_seq_len") or 32_768,
        n_experts=_number(path, moe, "num_experts") if moe else 0,
        n_experts_per_token=_number(path, moe, "num_experts_per_tok") if moe else 0,
    )


def _refuse(path: Path, config: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        if config.get(key):
            raise UnsupportedArchitectureError(path, f"{key!r} in the configuration")


def _number(path: Path, config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(path, f"{key} must be a whole number above 0, and it is {value!r}")
    return value


def _model_config(path: Path, **values: Any) -> ModelConfig:
    """Return the configuration; its own checks say what does not hold."""
    try:
        family: Literal["mistral", "mixtral"] = "mixtral" if values["n_experts"] else "mistral"
        return ModelConfig(family=family, **{**values, "rope_theta": float(values["rope_theta"])})
    except (ValueError, TypeError) as error:
        raise CheckpointError(path, f"it describes no model: {error}") from error


HUGGINGFACE: Final = Layout(
    name="huggingface",
    config_file="config.json",
    index_file="model.safetensors.index.json",
    weights="model*.safetensors",
    tensors={
        "embedding": "model.embed_tokens.weight",
        "norm": "model.norm.weight",
        "lm_head": "lm_head.weight",
    },
    layer_tensors={
        "attention_norm": "model.layers.{i}.input_layernorm.weight",
        "q": "model.layers.{i}.self_attn.q_proj.weight",
        "k": "model.layers.{i}.self_attn.k_proj.weight",
        "v": "model.layers.{i}.self_attn.v_proj.weight",
        "o": "model.layers.{i}.self_attn.o_proj.weight",
        "ffn_norm": "model.layers.{i}.post_attention_layernorm.weight",
    },
    dense_tensors={
        "gate": "model.layers.{i}.mlp.gate_proj.weight",
        "up": "model.layers.{i}.mlp.up_proj.weight",
        "down": "model.layers.{i}.mlp.down_proj.weight",
    },
    mixture_tensors={
        "router": "model.layers.{i}.block_sparse_moe.gate.weight",
        "experts.{e}.gate": "model.layers.{i}.block_sparse_moe.experts.{e}.w1.weight",
        "experts.{e}.up": "model.layers.{i}.block_sparse_moe.experts.{e}.w3.weight",
        "experts.{e}.down": "model.layers.{i}.block_sparse_moe.experts.{e}.w2.weight",
    },
    interleaved_rotary=False,
    read_config=_read_huggingface,
)

MISTRAL: Final = Layout(
    name="mistral",
    config_file="params.json",
    index_file="consolidated.safetensors.index.json",
    weights="consolidated*.safetensors",
    tensors={
        "embedding": "tok_embeddings.weight",
        "norm": "norm.weight",
        "lm_head": "output.weight",
    },
    layer_tensors={
        "attention_norm": "layers.{i}.attention_norm.weight",
        "q": "layers.{i}.attention.wq.weight",
        "k": "layers.{i}.attention.wk.weight",
        "v": "layers.{i}.attention.wv.weight",
        "o": "layers.{i}.attention.wo.weight",
        "ffn_norm": "layers.{i}.ffn_norm.weight",
    },
    dense_tensors={
        "gate": "layers.{i}.feed_forward.w1.weight",
        "up": "layers.{i}.feed_forward.w3.weight",
        "down": "layers.{i}.feed_forward.w2.weight",
    },
    mixture_tensors={
        "router": "layers.{i}.feed_forward.gate.weight",
        "experts.{e}.gate": "layers.{i}.feed_forward.experts.{e}.w1.weight",
        "experts.{e}.up": "layers.{i}.feed_forward.experts.{e}.w3.weight",
        "experts.{e}.down": "layers.{i}.feed_forward.experts.{e}.w2.weight",
    },
    interleaved_rotary=True,
    read_config=_read_mistral,
)

LAYOUTS: Final = (HUGGINGFACE, MISTRAL)
"""In the order in which they are looked for: a folder that has both is read in the first."""
