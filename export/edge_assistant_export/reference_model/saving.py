"""The trained model as a checkpoint in the Hugging Face layout, in bfloat16, and back."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save

from edge_assistant_export.reference_model.conversations import SYSTEM
from edge_assistant_export.reference_model.model import Mistral, Shape

if TYPE_CHECKING:
    from pathlib import Path

_CARD = """---
license: apache-2.0
language: en
---
# {name}

The trained checkpoint in bfloat16; `../README.md` is its model card.
"""


def save_checkpoint(model: Mistral, tokenizer_json: bytes, folder: Path) -> None:
    """Write config, weights, tokenizer and what the exporter wants to know of the assistant."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = {
        "config.json": model.shape.config(),
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 11, "do_sample": False},
        "assistant.json": {"system": SYSTEM, "tools": "learnt"},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_CARD.format(name=folder.absolute().parent.name), encoding="utf-8")
    (folder / "tokenizer.json").write_bytes(tokenizer_json)
    weights = {name: weight.detach().to(torch.bfloat16).contiguous() for name, weight in model.state_dict().items()}
    partial = folder / "model.safetensors.partial"
    partial.write_bytes(save(weights, metadata={"format": "pt"}))
    partial.replace(folder / "model.safetensors")


def load_checkpoint(folder: Path) -> Mistral:
    """Return the model of a checkpoint folder in float32, ready to be asked."""
    config = json.loads((folder / "config.json").read_bytes())
    model = Mistral(Shape(**{size.name: config[size.name] for size in fields(Shape) if size.name in config}))
    weights = {name: weight.to(torch.float32) for name, weight in load_file(folder / "model.safetensors").items()}
    model.load_state_dict(weights)
    model.eval()
    return model


def load_state(path: Path) -> Mistral:
    """Return the model of a training state."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = Mistral(Shape(**state["shape"]))
    model.load_state_dict(state["model"])
    model.eval()
    return model
