"""The files by which other runtimes load a bundle: config.json (optimum-onnx), genai_config.json (onnxruntime-genai).

Our own runtime reads neither. onnxruntime-genai refuses keys that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edge_assistant.bundle import ATTENTION_MASK, GRAPH_FILE, INPUT_IDS, LOGITS, Architecture, Manifest, bounded_rows


def bundle_config(manifest: Manifest) -> dict[str, Any]:
    """Return config.json of a bundle: to what loads a graph, a mixture is a Mistral like any other."""
    dense = replace(manifest.architecture, family="mistral", n_experts=0, n_experts_per_token=0)
    return huggingface_config(dense, manifest.special_ids)


def huggingface_config(architecture: Architecture, special_ids: Mapping[str, int]) -> dict[str, Any]:
    """Return config.json of a checkpoint in the words of transformers."""
    experts = {
        "num_local_experts": architecture.n_experts,
        "num_experts_per_tok": architecture.n_experts_per_token,
    }
    return {
        "architectures": [f"{architecture.family.capitalize()}ForCausalLM"],
        "model_type": architecture.family,
        "hidden_size": architecture.hidden_size,
        "intermediate_size": architecture.ffn_size,
        "num_hidden_layers": architecture.n_layers,
        "num_attention_heads": architecture.n_heads,
        "num_key_value_heads": architecture.n_kv_heads,
        "head_dim": architecture.head_dim,
        "vocab_size": architecture.vocab_size,
        "max_position_embeddings": architecture.max_positions,
        "rms_norm_eps": architecture.norm_eps,
        "rope_theta": architecture.rope_theta,
        "sliding_window": architecture.sliding_window,
        "hidden_act": "silu",
        "tie_word_embeddings": architecture.tied_embedding,
        "use_cache": True,
        **(experts if architecture.n_experts else {}),
        **_special_ids(special_ids),
    }


def genai_config(manifest: Manifest) -> dict[str, Any]:
    """Return genai_config.json: the graph's names and sizes, greedy search, one cache buffer for past and present."""
    architecture = manifest.architecture
    return {
        "model": {
            "type": "mistral",
            "vocab_size": architecture.vocab_size,
            "context_length": architecture.max_positions,
            **_special_ids(manifest.special_ids),
            "decoder": {
                "filename": GRAPH_FILE,
                "head_size": architecture.head_dim,
                "hidden_size": architecture.hidden_size,
                "num_attention_heads": architecture.n_heads,
                "num_key_value_heads": architecture.n_kv_heads,
                "num_hidden_layers": architecture.n_layers,
                "inputs": {
                    "input_ids": INPUT_IDS,
                    "attention_mask": ATTENTION_MASK,
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": LOGITS,
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
                **_bounded_window(manifest),
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
            },
        },
        "search": {"max_length": architecture.max_positions, "do_sample": False, "past_present_share_buffer": True},
    }


def _bounded_window(manifest: Manifest) -> dict[str, Any]:
    """Return which layers drop what has left their window, by the graph's own hand, and in how many rows."""
    architecture = manifest.architecture
    window = architecture.sliding_window
    if manifest.cache.window != "bounded" or window is None:
        return {}
    return {
        "sliding_window": {
            "window_size": window,
            "cache_slack": bounded_rows(window, architecture.max_positions) - window,
            "layers": list(architecture.windowed_layers),
            "slide_key_value_cache": False,
            "slide_inputs": False,
        }
    }


def _special_ids(ids: Mapping[str, int]) -> dict[str, int]:
    """Return begin, end and padding; where the vocabulary has no padding of its own, the end stands in for it."""
    begin, end = ids.get("<s>", 1), ids.get("</s>", 2)
    return {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": ids.get("<pad>", end)}
