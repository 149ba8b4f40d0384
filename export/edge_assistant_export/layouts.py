"""The two layouts in which Mistral's models are published, as tables: file names, tensor names, configuration.

                 Hugging Face                             Mistral's own
    config       config.json                              params.json
    weights      model*.safetensors                       consolidated*.safetensors
    query rows   rotary pairs (j, j + head_dim/2)         rotary pairs (2j, 2j + 1)

Both are read into one `ModelConfig` and one set of canonical names: `embedding`, `norm`, `lm_head` and, for layer i,
`layers.{i}.` + attention_norm, q, k, v, o, ffn_norm, and gate, up, down; of a mixture router, and gate, up, down
behind `experts.{e}.`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final, Literal

from edge_assistant.bundle import Architecture as ModelConfig
from edge_assistant_export.configuration import read_huggingface, read_mistral

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
    read_config=read_huggingface,
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
    read_config=read_mistral,
)

LAYOUTS: Final = (HUGGINGFACE, MISTRAL)
"""In the order in which they are looked for: a folder that has both is read in the first."""
