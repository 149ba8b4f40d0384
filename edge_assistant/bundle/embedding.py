"""The bundle of a sentence encoder, which makes a text into a vector.

    model.onnx
        input_ids             int64   [batch, seq]      pad_id behind the end of a shorter text
        attention_mask        int64   [batch, seq]      0 there
        token_type_ids        int64   [batch, seq]      all 0, where the graph takes them
        last_hidden_state     float32 [batch, seq, hidden]

The vector is the hidden state of the first token (`cls`) or the mean over the tokens of the text (`mean`), its special
tokens included, divided by its length where `normalize` says so. `tokenizer.json` adds the special tokens; it neither
cuts nor pads by itself. A question has query_prompt before it, a text to be found passage_prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from edge_assistant.bundle.folder import (
    GRAPH_FILE,
    STRICT,
    TOKENIZER_FILE,
    FileEntry,
    FileName,
    Folder,
    Id,
    Kind,
    ManifestFile,
    ModelName,
    Origin,
    Size,
)

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True, slots=True, config=STRICT)
class EncoderArchitecture:
    """The shape of the model."""

    family: Literal["bert", "distilbert", "roberta", "xlm-roberta"]
    n_layers: Size
    hidden_size: Size
    n_heads: Size
    vocab_size: Size


@dataclass(frozen=True, slots=True, config=STRICT)
class EmbeddingManifest(ManifestFile):
    """All that is known of a sentence encoder without reading its graph."""

    KIND: ClassVar[Kind] = "embedding"
    REQUIRED: ClassVar[frozenset[str]] = frozenset({GRAPH_FILE, TOKENIZER_FILE})

    format_version: int
    kind: Literal["embedding"]
    name: ModelName
    created_by: str
    """The exporter and its version."""
    architecture: EncoderArchitecture
    bits: Literal[8, 32]
    """Bits of a weight in the matrices."""
    embedding_size: Size
    """Numbers of a vector."""
    pooling: Pooling
    normalize: bool
    max_length: Size
    """Tokens of a text, special tokens included; what is longer is to be cut."""
    pad_id: Id
    query_prompt: str
    passage_prompt: str
    licence: str | None
    source: Origin
    files: Mapping[FileName, FileEntry]
    """Every file but the manifest itself, by its name in the folder."""
    quality: Mapping[str, float]
    """`mean_cosine` and `min_cosine` between its vectors and the checkpoint's, over a few sentences."""


class EmbeddingBundle(Folder[EmbeddingManifest]):
    """The folder of a sentence encoder."""

    MANIFEST = EmbeddingManifest

    @property
    def graph_path(self) -> Path:
        """The ONNX graph."""
        return self.path / GRAPH_FILE
