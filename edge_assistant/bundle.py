"""The contract between the exporter and the board: what lies in a bundle, and what must hold before it is loaded.

    home-mini/
      manifest.json        the facts below, and the size and hash of every other file
      model.onnx           the graph
      model.onnx.data      its weights, mapped
      tokenizer.json       the vocabulary
      config.json          for neighbours (optimum-onnx)
      genai_config.json    for neighbours (onnxruntime-genai)

The exporter writes through the same classes the board reads with. The graph's inputs and outputs are

    input_ids                int64   [batch, seq]
    attention_mask           int64   [batch, total]     total = past + seq
    logits_to_keep           int64   scalar, an input with the default 1
    past_key_values.N.key    cache   [batch, n_kv_heads, past, head_dim], `.value` alike
    logits                   float32 [batch, logits_to_keep, vocab], declared [batch, 1, vocab]
    present.N.key            cache   as past, the same buffer, `.value` alike
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from edge_assistant.errors import (
    BundleFileMissingError,
    BundleHashError,
    BundleManifestError,
    BundleSizeError,
    BundleVersionError,
    ModelNotFoundError,
)

FORMAT_VERSION = 1

MANIFEST_FILE = "manifest.json"
GRAPH_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
TOKENIZER_FILE = "tokenizer.json"

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
LOGITS_TO_KEEP = "logits_to_keep"
LOGITS = "logits"


def past_key(layer: int) -> str:
    """Return the name of a layer's key cache as the graph takes it."""
    return f"past_key_values.{layer}.key"


def past_value(layer: int) -> str:
    """Return the name of a layer's value cache as the graph takes it."""
    return f"past_key_values.{layer}.value"


def present_key(layer: int) -> str:
    """Return the name of a layer's key cache as the graph gives it."""
    return f"present.{layer}.key"


def present_value(layer: int) -> str:
    """Return the name of a layer's value cache as the graph gives it."""
    return f"present.{layer}.value"


_STRICT = ConfigDict(extra="forbid", strict=True)
_Size = Annotated[int, Field(gt=0)]
_Id = Annotated[int, Field(ge=0)]
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

InstructVersion = Literal["v1", "v2", "v3", "v3-tekken", "v7", "v7-tekken"]


@dataclass(frozen=True, slots=True, config=_STRICT)
class Yarn:
    """How rotary positions are stretched beyond the length of the first training (arXiv 2309.00071)."""

    factor: Annotated[float, Field(ge=1)]
    original_positions: _Size
    beta_fast: Annotated[float, Field(gt=0)]
    """Pairs of channels that turn more often than this over the first length stay as they are."""
    beta_slow: Annotated[float, Field(gt=0)]
    """Those that turn less often than this slow down by the whole factor."""
    attention_factor: Annotated[float, Field(gt=0)]
    """By how much rotated queries and keys are longer than unrotated ones."""


@dataclass(frozen=True, slots=True, config=_STRICT)
class Architecture:
    """The shape of the model, by the names of Mistral's own reference code."""

    family: Literal["mistral", "mixtral"]
    n_layers: _Size
    hidden_size: _Size
    n_heads: _Size
    n_kv_heads: _Size
    head_dim: _Size
    ffn_size: _Size
    vocab_size: _Size
    rope_theta: Annotated[float, Field(gt=0)]
    norm_eps: Annotated[float, Field(ge=0)]
    sliding_window: _Size | None
    """How many tokens back a position attends to, None for all; see `window_of` for layers that differ."""
    tied_embedding: bool
    """The output head is the embedding."""
    max_positions: _Size
    """How many positions the rotary tables cover: no context is longer."""
    n_experts: Annotated[int, Field(ge=0)]
    """Feed-forward layers of a mixture; 0 for a dense model, whose every token passes the one there is."""
    n_experts_per_token: Annotated[int, Field(ge=0)]
    full_attention_layers: tuple[_Id, ...]
    """Layers that attend to all, though there is a window."""
    yarn: Yarn | None
    """How rotary positions are stretched, None where they are not."""

    def __post_init__(self) -> None:
        """Refuse heads that cannot be shared out evenly, and mixtures that are none."""
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} is no multiple of n_kv_heads {self.n_kv_heads}")
        if not 0 <= self.n_experts_per_token <= self.n_experts or bool(self.n_experts) != bool(
            self.n_experts_per_token
        ):
            raise ValueError(f"{self.n_experts_per_token} of {self.n_experts} experts cannot be chosen")
        if bool(self.n_experts) != (self.family == "mixtral"):
            raise ValueError(f"a {self.family} with {self.n_experts} experts is not known")
        if any(layer >= self.n_layers for layer in self.full_attention_layers):
            raise ValueError(f"full_attention_layers {self.full_attention_layers} of {self.n_layers} layers")

    def window_of(self, layer: int) -> int | None:
        """Return how many tokens back a layer attends to, None for all."""
        return None if layer in self.full_attention_layers else self.sliding_window


@dataclass(frozen=True, slots=True, config=_STRICT)
class Quantization:
    """How the weights are stored; a block shares one scale."""

    bits: Literal[4, 8, 32]
    block_size: _Size | None
    """Weights to a scale, None for float32 weights."""
    zero_points: bool
    """Whether each block has a zero point of its own."""
    lm_head_bits: Literal[4, 8, 32]
    embedding_bits: Literal[4, 8, 32]
    accuracy_level: Annotated[int, Field(ge=0, le=4)]
    """MatMulNBits' own scale: 4 multiplies in int8, 0 in float32."""
    method: Literal["least_squares", "maximum", "gptq", "none"]


@dataclass(frozen=True, slots=True, config=_STRICT)
class CacheSpec:
    """How the graph keeps keys and values: each layer holds every position of the context, also under a window."""

    type: Literal["float32", "int8"]

    @property
    def item_bytes(self) -> int:
        """Bytes of one number."""
        return 4 if self.type == "float32" else 1

    def bytes_per_token(self, architecture: Architecture) -> int:
        """Return what one position costs: keys and values of every layer."""
        return 2 * architecture.n_layers * architecture.n_kv_heads * architecture.head_dim * self.item_bytes


@dataclass(frozen=True, slots=True, config=_STRICT)
class AssistantSpec:
    """What the model was trained to be told: its system text, and whether it knows the tools by heart."""

    system: str
    tools: Literal["learnt", "listed"]


@dataclass(frozen=True, slots=True, config=_STRICT)
class AdapterSource:
    """The LoRA adapter that was merged into the checkpoint before its weights were quantised."""

    name: str
    revision: str | None
    sha256: _Sha256
    """Of the file of its weights."""
    rank: _Size
    """As its configuration says for all matrices, which it may say otherwise for some; the next two alike."""
    alpha: float
    scaling: float
    """What its product is multiplied by: alpha / rank, or alpha / sqrt(rank)."""
    base_model: str | None
    """The model it was trained on, as it says itself."""


@dataclass(frozen=True, slots=True, config=_STRICT)
class Source:
    """The checkpoint the bundle was made from."""

    name: str
    layout: Literal["huggingface", "mistral"]
    revision: str | None
    adapter: AdapterSource | None


@dataclass(frozen=True, slots=True, config=_STRICT)
class FileEntry:
    """What a file must be."""

    bytes: _Id
    sha256: _Sha256

    @classmethod
    def of(cls, path: Path) -> Self:
        """Measure a file."""
        return cls(path.stat().st_size, _sha256(path))


_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


@dataclass(frozen=True, slots=True, config=_STRICT)
class Manifest:
    """All that is known of a bundle without reading its graph."""

    format_version: int
    name: str
    created_by: str
    """The exporter and its version."""
    architecture: Architecture
    quantization: Quantization
    cache: CacheSpec
    instruct: InstructVersion | None
    """The format of a chat, None for a model that only continues text."""
    special_ids: Mapping[str, _Id]
    """The ids of the control tokens by name, such as `</s>`."""
    licence: str | None
    source: Source
    assistant: AssistantSpec | None
    files: Mapping[_FileName, FileEntry]
    """Every file but the manifest itself, by its name in the folder."""
    quality: Mapping[str, float] | None
    """What `verify` measured, by name; None before it has."""

    def to_json(self) -> str:
        """Return the text of manifest.json."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, path: Path = Path(MANIFEST_FILE)) -> Manifest:
        """Read the text of manifest.json; `path` is for the messages.

        Raises:
            BundleVersionError: It was written by an exporter this runtime does not know.
            BundleManifestError: It is no JSON, or a key is unknown, missing or of the wrong kind.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise BundleManifestError(path, [f"not JSON: {error}"]) from error
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if isinstance(version, int) and version != FORMAT_VERSION:
            raise BundleVersionError(path, version, FORMAT_VERSION)
        try:
            return _MANIFEST.validate_json(text)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, item['loc'])) or 'top level'}: {item['msg']}" for item in error.errors()]
            raise BundleManifestError(path, problems) from error


_MANIFEST: TypeAdapter[Manifest] = TypeAdapter(Manifest)


def cache_bytes_per_token(manifest: Manifest) -> int:
    """Return what one position costs in the cache: keys and values of every layer."""
    return manifest.cache.bytes_per_token(manifest.architecture)


class Bundle:
    """A bundle's folder whose manifest has been read and whose files are what it says."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Take what `open` has checked."""
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path | str, seen: Path | None = None) -> Bundle:
        """Check a bundle and return it.

        Version and sizes are checked every time. Hashing 4 GB costs half a minute, so a file is hashed when it is first
        seen and when its size or time has changed since; `seen` is the file that remembers. Without it all are hashed.

        Raises:
            BundleFileMissingError, BundleManifestError, BundleVersionError, BundleSizeError, BundleHashError
        """
        path = Path(path)
        manifest_path = path / MANIFEST_FILE
        if not manifest_path.is_file():
            raise BundleFileMissingError(manifest_path)
        manifest = Manifest.from_json(manifest_path.read_bytes(), manifest_path)
        required = {GRAPH_FILE, WEIGHTS_FILE, TOKENIZER_FILE}
        if unlisted := sorted(required - manifest.files.keys()):
            raise BundleManifestError(manifest_path, [f"files: {name} is not listed" for name in unlisted])
        bundle = cls(path, manifest)
        bundle._check_sizes()
        bundle._check_hashes(seen)
        return bundle

    @property
    def graph_path(self) -> Path:
        """The ONNX graph."""
        return self.path / GRAPH_FILE

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer's file."""
        return self.path / TOKENIZER_FILE

    def verify(self) -> None:
        """Check the size and hash of every file, whatever was seen before.

        Raises:
            BundleFileMissingError, BundleSizeError, BundleHashError
        """
        self._check_sizes()
        self._check_hashes(None)

    def _check_sizes(self) -> None:
        for name, entry in self.manifest.files.items():
            file = self.path / name
            if not file.is_file():
                raise BundleFileMissingError(file)
            if (actual := file.stat().st_size) != entry.bytes:
                raise BundleSizeError(file, entry.bytes, actual)

    def _check_hashes(self, seen: Path | None) -> None:
        known = _read_seen(seen)
        marks = {}
        for name, entry in self.manifest.files.items():
            file = (self.path / name).resolve()
            status = file.stat()
            mark = [status.st_size, status.st_mtime_ns, entry.sha256]
            if known.get(str(file)) != mark and (actual := _sha256(file)) != entry.sha256:
                raise BundleHashError(file, entry.sha256, actual)
            marks[str(file)] = mark
        if seen is not None and known != (known | marks):
            _write_seen(seen, known | marks)


def find_model(name_or_path: str | Path, folders: Sequence[Path]) -> Path:
    """Return the bundle's folder: a path as it stands, or a name looked up in the folders in turn.

    Raises:
        ModelNotFoundError: No folder with a manifest is there; it says where was looked and how to get one.
    """
    looked = [Path(name_or_path).expanduser(), *(folder.expanduser() / name_or_path for folder in folders)]
    for path in looked:
        if (path / MANIFEST_FILE).is_file():
            return path
    raise ModelNotFoundError(str(name_or_path), looked)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_seen(path: Path | None) -> dict[str, Any]:
    """Return what is remembered; an unreadable memory is an empty one, since it only saves time."""
    try:
        seen = json.loads(path.read_bytes()) if path is not None else {}
    except (FileNotFoundError, ValueError):
        return {}
    return seen if isinstance(seen, dict) else {}


def _write_seen(path: Path, seen: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(seen, indent=1), encoding="utf-8")
    partial.replace(path)
