"""GGUF files of Mistral's architecture, as llama.cpp reads them: the header that they share, and a whole checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from edge_assistant.bundle import Architecture
from edge_assistant_export.checkpoint import Checkpoint

_MATRICES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}
_FEED_FORWARD = {"gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
_NORMS = {"attention_norm": "attn_norm", "ffn_norm": "ffn_norm"}


def begin(path: Path, shape: Architecture, layers: int) -> gguf.GGUFWriter:
    """Return a writer with all of the header; the vocabulary is one of placeholders, for only ids are fed."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(shape.max_positions)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.ffn_size)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    if shape.n_experts:
        writer.add_expert_count(shape.n_experts)
        writer.add_expert_used_count(shape.n_experts_per_token)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([b"<unk>", b"<s>", b"</s>"] + [f"<{i}>".encode() for i in range(3, shape.vocab_size)])
    writer.add_token_scores([0.0] * shape.vocab_size)
    writer.add_token_types([gguf.TokenType.NORMAL] * shape.vocab_size)
    return writer


def finish(writer: gguf.GGUFWriter) -> None:
    """Write the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint in float32; llama.cpp's own quantiser makes the smaller types of it."""
    shape = checkpoint.config
    writer = begin(path, shape, shape.n_layers)
    writer.add_tensor("token_embd.weight", checkpoint.tensor("embedding"))
    writer.add_tensor("output_norm.weight", checkpoint.tensor("norm"))
    if not shape.tied_embedding:
        writer.add_tensor("output.weight", checkpoint.tensor("lm_head"))
    for layer in range(shape.n_layers):
        if shape.n_experts:
            router = checkpoint.tensor(f"layers.{layer}.router")
            writer.add_tensor(f"blk.{layer}.ffn_gate_inp.weight", router)
            for ours, theirs in _FEED_FORWARD.items():
                names = [f"layers.{layer}.experts.{expert}.{ours}" for expert in range(shape.n_experts)]
                writer.add_tensor(f"blk.{layer}.{theirs}_exps.weight", np.stack([*map(checkpoint.tensor, names)]))
        dense = _MATRICES if shape.n_experts else _MATRICES | _FEED_FORWARD
        for ours, theirs in (dense | _NORMS).items():
            tensor = checkpoint.tensor(f"layers.{layer}.{ours}")
            if ours in ("q", "k"):
                tensor = _interleaved(tensor, shape.head_dim)
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", tensor)
    finish(writer)


def _interleaved(rows: npt.NDArray[Any], head_dim: int) -> npt.NDArray[Any]:
    """Put the rows of a head that rotate together beside each other, as llama.cpp wants those of this architecture."""
    heads = rows.reshape(-1, 2, head_dim // 2, rows.shape[1])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(rows.shape)
