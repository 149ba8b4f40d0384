"""The bundle of a language model.

The graph's inputs and outputs are

    input_ids                int64   [batch, seq]
    attention_mask           int64   [batch, total]     total = past + seq
    logits_to_keep           int64   scalar, an input with the default 1
    past_key_values.N.key    cache   [batch, n_kv_heads, past, head_dim], `.value` alike
    logits                   float32 [batch, logits_to_keep, vocab], declared [batch, 1, vocab]
    present.N.key            cache   as past, the same buffer, `.value` alike

A cache is int8 or of the type that the graph computes in, float32 or float16; logits are float32 in either case. The
scales of an int8 cache, float32 [1, n_kv_heads, 1, head_dim] each, are constants in the graph by the names `key_scale`
and `value_scale` give.

Under a bounded window cache, past and present of a layer with a window have as many rows as their owner likes, at least
as many as the window is long, and the graph itself drops positions (`engine/window.py`). Inputs for an adapter, where
the manifest says that there are any, are in `lora`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from edge_assistant.bundle.cache_size import CacheSize, bounded_positions
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
    Sha256,
    Size,
)
from edge_assistant.bundle.lora import LoraSpec

WEIGHTS_FILE = "model.onnx.data"

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


def key_scale(layer: int) -> str:
    """Return the name of the constant that says what a step of a layer's int8 keys is worth, by head and channel."""
    return f"layers.{layer}.k_scale"


def value_scale(layer: int) -> str:
    """Return the name of the constant that says what a step of a layer's int8 values is worth."""
    return f"layers.{layer}.v_scale"


Dtype = Literal["float32", "float16"]
InstructVersion = Literal["v1", "v2", "v3", "v3-tekken", "v7", "v7-tekken", "v11", "v13"]


@dataclass(frozen=True, slots=True, config=STRICT)
class Yarn:
    """How rotary positions are stretched beyond the length of the first training (arXiv 2309.00071)."""

    factor: Annotated[float, Field(ge=1)]
    original_positions: Size
    beta_fast: Annotated[float, Field(gt=0)]
    """Pairs of channels that turn more often than this over the first length stay as they are."""
    beta_slow: Annotated[float, Field(gt=0)]
    """Those that turn less often than this slow down by the whole factor."""
    attention_factor: Annotated[float, Field(gt=0)]
    """By how much rotated queries and keys are longer than unrotated ones."""


@dataclass(frozen=True, slots=True, config=STRICT)
class Architecture:
    """The shape of the model, by the names of Mistral's own reference code."""

    family: Literal["mistral", "mixtral"]
    n_layers: Size
    hidden_size: Size
    n_heads: Size
    n_kv_heads: Size
    head_dim: Size
    ffn_size: Size
    vocab_size: Size
    rope_theta: Annotated[float, Field(gt=0)]
    norm_eps: Annotated[float, Field(ge=0)]
    sliding_window: Size | None
    """How many tokens back a position attends to, None for all; see `window_of` for layers that differ."""
    tied_embedding: bool
    """The output head is the embedding."""
    max_positions: Size
    """How many positions the rotary tables cover: no context is longer."""
    n_experts: Annotated[int, Field(ge=0)]
    """Feed-forward layers of a mixture; 0 for a dense model, whose every token passes the one there is."""
    n_experts_per_token: Annotated[int, Field(ge=0)]
    full_attention_layers: tuple[Id, ...]
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
        if self.yarn is not None and self.rope_theta <= 1:
            raise ValueError(f"a rope_theta of {self.rope_theta} cannot be stretched")
        if any(layer >= self.n_layers for layer in self.full_attention_layers):
            raise ValueError(f"full_attention_layers {self.full_attention_layers} of {self.n_layers} layers")

    def window_of(self, layer: int) -> int | None:
        """Return how many tokens back a layer attends to, None for all."""
        return None if layer in self.full_attention_layers else self.sliding_window

    @property
    def windowed_layers(self) -> tuple[int, ...]:
        """Layers whose window is shorter than the longest context: positions do pass out of their sight."""
        if self.sliding_window is None or self.sliding_window >= self.max_positions:
            return ()
        return tuple(layer for layer in range(self.n_layers) if layer not in self.full_attention_layers)


SMALL_BLOCK = 32
FLOAT_BITS: Final[Mapping[Dtype, Literal[16, 32]]] = {"float32": 32, "float16": 16}


@dataclass(frozen=True, slots=True, config=STRICT)
class Quantization:
    """How the weights are stored; a block shares one scale."""

    bits: Literal[4, 8, 16, 32]
    """Of a weight in every matrix but those of `eight_bits`; 16 and 32 are floats, of the type that `dtype` is."""
    eight_bits: tuple[str, ...]
    """Names of matrices whose weights have 8 bits where the others have 4: `embedding` (the head too where they are
    tied), `lm_head`, and of each layer `layers.N.qkv`, `.o`, `.gate_up`, `.down`, or `.experts` for a mixture."""
    block_size: Size | None
    """Weights to a scale in every matrix but those of `small_blocks`, None for weights that are floats."""
    small_blocks: tuple[str, ...]
    """Names of matrices in which 32 weights share a scale."""
    zero_points: bool
    """Whether each block has a zero point of its own."""
    accuracy_level: Annotated[int, Field(ge=0, le=4)]
    """MatMulNBits' own scale: 4 multiplies in int8, 0 in float32."""
    method: str
    """How they were rounded, as the exporter calls it; "none" for floats. A board has no use for it."""
    dtype: Dtype = "float32"
    """Of activations, and of what is stored beside the integers: scales, norms, rotary tables."""

    def __post_init__(self) -> None:
        """Refuse exceptions to what is no rule, and floats of another type than those they are multiplied with."""
        if self.bits in FLOAT_BITS.values() and self.bits != self.float_bits:
            raise ValueError(f"weights of {self.bits} bits cannot be multiplied in {self.dtype}")
        if self.eight_bits and self.bits != 4:
            raise ValueError(f"eight_bits names matrices beside others of {self.bits} bits")
        if self.small_blocks and self.block_size is None:
            raise ValueError("small_blocks names matrices beside others without blocks")

    @property
    def float_bits(self) -> Literal[16, 32]:
        """Return the bits of a scale, an activation, and of a weight that is not quantised."""
        return FLOAT_BITS[self.dtype]

    @property
    def quantized(self) -> bool:
        """Whether weights are integers."""
        return self.bits != self.float_bits

    def block_size_of(self, matrix: str) -> int | None:
        """Return how many weights share a scale in the matrix of a name."""
        return SMALL_BLOCK if matrix in self.small_blocks else self.block_size

    def bits_of(self, matrix: str) -> int:
        """Return the bits of a weight in the matrix of a name."""
        return 8 if matrix in self.eight_bits else self.bits


@dataclass(frozen=True, slots=True, config=STRICT)
class CacheSpec:
    """How the graph keeps keys and values."""

    type: Dtype | Literal["int8"]
    window: Literal["bounded", "full"] | None
    """What layers with a window shorter than the context hold: no more than it and some slack, or every position. None
    where there are no such layers."""

    @property
    def item_bytes(self) -> int:
        """Bytes of one number."""
        return 1 if self.type == "int8" else FLOAT_BITS[self.type] // 8

    def size(self, architecture: Architecture) -> CacheSize:
        """Return what a context costs."""
        per_layer = 2 * architecture.n_kv_heads * architecture.head_dim * self.item_bytes
        n_layers, bound, n_bounded = architecture.n_layers, architecture.max_positions, 0
        if self.window == "bounded" and architecture.sliding_window is not None:
            bound = min(bound, bounded_positions(architecture.sliding_window))
            n_bounded = len(architecture.windowed_layers)
        return CacheSize(n_layers * per_layer, (n_layers - n_bounded) * per_layer, bound, architecture.max_positions)


@dataclass(frozen=True, slots=True, config=STRICT)
class AssistantSpec:
    """What the model was trained to be told: its system text, and whether it knows the tools by heart."""

    system: str
    tools: Literal["learnt", "listed"]


@dataclass(frozen=True, slots=True, config=STRICT)
class AdapterSource:
    """The LoRA adapter that was merged into the checkpoint before its weights were quantised."""

    name: str
    revision: str | None
    sha256: Sha256
    """Of the file of its weights."""
    rank: Size
    """As its configuration says for all matrices, which it may say otherwise for some; the next two alike."""
    alpha: float
    scaling: float
    """What its product is multiplied by: alpha / rank, or alpha / sqrt(rank)."""
    base_model: str | None
    """The model it was trained on, as it says itself."""


@dataclass(frozen=True, slots=True, config=STRICT)
class Source:
    """The checkpoint the bundle was made from."""

    name: str
    layout: Literal["huggingface", "mistral"]
    revision: str | None
    adapter: AdapterSource | None


@dataclass(frozen=True, slots=True, config=STRICT)
class Manifest(ManifestFile):
    """All that is known of a bundle without reading its graph."""

    KIND: ClassVar[Kind] = "language"
    REQUIRED: ClassVar[frozenset[str]] = frozenset({GRAPH_FILE, WEIGHTS_FILE, TOKENIZER_FILE})

    format_version: int
    kind: Literal["language"]
    name: ModelName
    created_by: str
    """The exporter and its version."""
    architecture: Architecture
    quantization: Quantization
    cache: CacheSpec
    instruct: InstructVersion | None
    """The format of a chat, None for a model that only continues text."""
    special_ids: Mapping[str, Id]
    """The ids of the control tokens by name, such as `</s>`."""
    licence: str | None
    source: Source
    assistant: AssistantSpec | None
    files: Mapping[FileName, FileEntry]
    """Every file but the manifest itself, by its name in the folder."""
    quality: Mapping[str, float] | None
    """What `verify` measured, by name; None before it has."""
    lora: LoraSpec | None = None
    """The adapters that the graph takes while it runs, None where it takes none."""

    def __post_init__(self) -> None:
        """Refuse a cache for windows that there are not, one that is silent on them, and one of another float type."""
        if self.cache.type not in ("int8", self.quantization.dtype):
            raise ValueError(f"cache.type is {self.cache.type} where attention computes in {self.quantization.dtype}")
        windowed = self.architecture.windowed_layers
        if bool(windowed) != (self.cache.window is not None):
            raise ValueError(f"cache.window is {self.cache.window} where the layers {windowed} outgrow their window")

    @property
    def bits(self) -> int:
        """Bits of a weight in most matrices."""
        return self.quantization.bits

    @property
    def cache_size(self) -> CacheSize:
        """What a context costs in the cache."""
        return self.cache.size(self.architecture)


class Bundle(Folder[Manifest]):
    """The folder of a language model."""

    MANIFEST = Manifest

    @property
    def graph_path(self) -> Path:
        """The ONNX graph."""
        return self.path / GRAPH_FILE
