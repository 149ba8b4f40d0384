"""Writes a random checkpoint of a given shape, at the disk's speed: for benchmarks and tests, where only shapes matter.

All weights are cut from one pool of normal numbers, drawn once and written again and again from a place of its own for
each tensor. Matrices have the variance 1 / in, so activations stay near 1, and those that add to the residual stream
are smaller by the root of the number of additions (GPT-2). Memory is that of the pool, whatever the shape.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from edge_assistant.bundle import Architecture, check_path
from edge_assistant.errors import EdgeAssistantError, OutputExistsError, OutputWriteError, RecipeError
from edge_assistant_export.layouts import HUGGINGFACE, LAYOUTS, Layout, LayoutName, expected_shapes
from edge_assistant_export.neighbours import huggingface_config
from edge_assistant_export.publish import partial_folder, publish

Dtype = Literal["bfloat16", "float16", "float32"]

_MISTRAL_7B: Final = Architecture(
    family="mistral",
    n_layers=32,
    hidden_size=4096,
    n_heads=32,
    n_kv_heads=8,
    head_dim=128,
    ffn_size=14336,
    vocab_size=32768,
    rope_theta=1e6,
    norm_eps=1e-5,
    sliding_window=None,
    tied_embedding=False,
    max_positions=32768,
    n_experts=0,
    n_experts_per_token=0,
    full_attention_layers=(),
    yarn=None,
)
_TINY: Final = replace(
    _MISTRAL_7B,
    n_layers=2,
    hidden_size=64,
    n_heads=4,
    n_kv_heads=2,
    head_dim=16,
    ffn_size=96,
    vocab_size=512,
    rope_theta=1e4,
    max_positions=256,
)

SHAPES: Final[Mapping[str, Architecture]] = {
    "mistral-7b": _MISTRAL_7B,
    "mistral-7b-v0.1": replace(_MISTRAL_7B, vocab_size=32000, rope_theta=1e4, sliding_window=4096),
    "mixtral-8x7b": replace(_MISTRAL_7B, family="mixtral", vocab_size=32000, n_experts=8, n_experts_per_token=2),
    "mixtral-8x22b": replace(
        _MISTRAL_7B,
        family="mixtral",
        n_layers=56,
        hidden_size=6144,
        n_heads=48,
        ffn_size=16384,
        max_positions=65536,
        n_experts=8,
        n_experts_per_token=2,
    ),
    "ministral-8b": replace(
        _MISTRAL_7B, n_layers=36, ffn_size=12288, vocab_size=131072, rope_theta=1e8, sliding_window=32768
    ),
    "nemo": replace(_MISTRAL_7B, n_layers=40, hidden_size=5120, vocab_size=131072, max_positions=131072),
    "mistral-small": replace(
        _MISTRAL_7B,
        n_layers=40,
        hidden_size=5120,
        ffn_size=32768,
        vocab_size=131072,
        rope_theta=1e9,
        max_positions=131072,
    ),
    "1b": replace(_MISTRAL_7B, n_layers=16, hidden_size=2048, n_heads=16, n_kv_heads=4, ffn_size=7168),
    # Small enough for a test; each of the others changes one thing.
    "tiny": _TINY,
    "tiny-tied": replace(_TINY, tied_embedding=True),
    "tiny-window": replace(_TINY, sliding_window=8),
    "tiny-head-dim": replace(_TINY, head_dim=32),
    "tiny-moe": replace(_TINY, family="mixtral", n_experts=4, n_experts_per_token=2),
}
"""What can be written, by name."""

_TYPES: Final[Mapping[Dtype, tuple[str, npt.DTypeLike]]] = {
    "bfloat16": ("BF16", ml_dtypes.bfloat16),
    "float16": ("F16", np.float16),
    "float32": ("F32", np.float32),
}
# A prime, so that the rows of no matrix repeat.
_POOL: Final = 16_777_259
_SHARD_BYTES: Final = 5_000_000_000


def synthesise(
    shape: str,
    out: Path,
    *,
    n_layers: int | None = None,
    layout: LayoutName = "huggingface",
    dtype: Dtype = "bfloat16",
    seed: int = 0,
    shard_bytes: int = _SHARD_BYTES,
) -> Path:
    """Write a checkpoint of one of SHAPES into a folder of its own, and return the folder.

    Same arguments, same bytes. `n_layers` replaces the shape's own; `shard_bytes` is the size at which a new file of
    weights is begun.

    Raises:
        OutputExistsError: The folder is there already.
        OutputBusyError: Another process writes it.
        OutputWriteError: The disk is full or otherwise refuses.
        RecipeError: There are to be no layers.
        PathEncodingError
    """
    if n_layers is not None and n_layers < 1:
        raise RecipeError("layers", n_layers, 1)
    architecture = SHAPES[shape] if n_layers is None else replace(SHAPES[shape], n_layers=n_layers)
    check_path(out.absolute())
    if os.path.lexists(out):
        raise OutputExistsError(out, overwritable=False)
    try:
        with partial_folder(out) as folder:
            _write(architecture, folder, layout, dtype, seed, shard_bytes)
            publish(folder, out, frozenset(), overwrite=False)
    except EdgeAssistantError:
        raise
    except OSError as error:
        raise OutputWriteError(out, None, error) from error
    return out


def _write(
    architecture: Architecture, out: Path, layout: LayoutName, dtype: Dtype, seed: int, shard_bytes: int
) -> None:
    chosen = next(known for known in LAYOUTS if known.name == layout)
    _write_weights(out, _stored_shapes(architecture, chosen), chosen, architecture.n_layers, dtype, seed, shard_bytes)
    config = (
        {**huggingface_config(architecture, {}), "torch_dtype": dtype}
        if chosen is HUGGINGFACE
        else _params(architecture)
    )
    (out / chosen.config_file).write_text(json.dumps(config, indent=1), encoding="utf-8")
    byte_level_tokenizer(architecture.vocab_size).save(str(out / "tokenizer.json"))


def byte_level_tokenizer(vocab_size: int) -> Tokenizer:
    """Return a tokenizer of exactly that many ids: Mistral's control tokens, the bytes, words of frequent letters."""
    controls = [
        *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
        *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "<pad>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
    ]
    tokens = [*controls, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    letters = "etaoinshrdlcumwfgypbvkjxqz"
    words = ("".join(word) for length in range(2, 6) for word in product(letters, repeat=length))
    merged = [word for word, _ in zip(words, range(vocab_size - len(tokens)), strict=False)]
    vocab = {token: number for number, token in enumerate([*tokens, *merged])}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=[(word[:-1], word[-1]) for word in merged]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in controls])
    return tokenizer


def _stored_shapes(architecture: Architecture, layout: Layout) -> dict[str, tuple[int, ...]]:
    names = layout.tensor_names(architecture)
    return {names[name]: shape for name, shape in expected_shapes(architecture).items()}


def _write_weights(
    out: Path,
    shapes: Mapping[str, tuple[int, ...]],
    layout: Layout,
    n_layers: int,
    dtype: Dtype,
    seed: int,
    shard_bytes: int,
) -> None:
    size = sum(math.prod(shape) for shape in shapes.values())
    pool = _Pool(min(size, _POOL), seed, dtype, n_layers)
    item_bytes = pool.item_bytes
    shards = list(_shards(shapes, item_bytes, shard_bytes))
    stem = layout.index_file.removesuffix(".safetensors.index.json")
    files = [
        f"{stem}.safetensors" if len(shards) == 1 else f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    for name, shard in zip(files, shards, strict=True):
        with (out / name).open("wb") as file:
            _write_shard(file, shard, pool)
    if len(shards) > 1:
        weight_map = {tensor: name for name, shard in zip(files, shards, strict=True) for tensor in shard}
        index = {"metadata": {"total_size": size * item_bytes}, "weight_map": weight_map}
        (out / layout.index_file).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _shards(
    shapes: Mapping[str, tuple[int, ...]], item_bytes: int, shard_bytes: int
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Give the tensors of each file: as many in a row as fit, and at least one."""
    shard: dict[str, tuple[int, ...]] = {}
    size = 0
    for name, shape in shapes.items():
        n_bytes = math.prod(shape) * item_bytes
        if shard and size + n_bytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = shape
        size += n_bytes
    yield shard


def _write_shard(file: BinaryIO, shard: Mapping[str, tuple[int, ...]], pool: _Pool) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shard.items():
        start, end = end, end + math.prod(shape) * pool.item_bytes
        header[name] = {"dtype": pool.dtype, "shape": shape, "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    file.write(len(encoded).to_bytes(8, "little") + encoded)
    for name, shape in shard.items():
        file.writelines(piece.view(np.uint8).data for piece in pool.pieces(name, shape))


class _Pool:
    """Normal numbers, already of the type and size in which they are written."""

    def __init__(self, size: int, seed: int, dtype: Dtype, n_layers: int) -> None:
        self.dtype, self._type = _TYPES[dtype]
        self.item_bytes = np.dtype(self._type).itemsize
        self._shrink = (2 * n_layers) ** -0.5
        self._rng = np.random.default_rng(seed)
        self._numbers = self._rng.standard_normal(size, dtype=np.float32)
        self._scaled: dict[float, npt.NDArray[Any]] = {}

    def pieces(self, name: str, shape: tuple[int, ...]) -> Iterator[npt.NDArray[Any]]:
        """Give the numbers of a tensor, from a place of its own in the pool on, and again from the pool's start."""
        left = math.prod(shape)
        if len(shape) == 1:
            yield np.ones(left, self._type)
            return
        adds_to_residual = name.endswith(("o_proj.weight", "wo.weight", "down_proj.weight", "w2.weight"))
        numbers = self._of_scale(shape[1] ** -0.5 * (self._shrink if adds_to_residual else 1.0))
        start = int(self._rng.integers(len(numbers)))
        while left:
            piece = numbers[start : start + left]
            yield piece
            start, left = 0, left - len(piece)

    def _of_scale(self, scale: float) -> npt.NDArray[Any]:
        if scale not in self._scaled:
            self._scaled[scale] = (self._numbers * np.float32(scale)).astype(self._type)
        return self._scaled[scale]


def _params(architecture: Architecture) -> dict[str, Any]:
    renamed = {"hidden_size": "dim", "ffn_size": "hidden_dim", "max_positions": "max_position_embeddings"}
    params = {renamed.get(name, name): value for name, value in asdict(architecture).items()}
    for ours in ("family", "full_attention_layers", "yarn"):
        del params[ours]
    moe = {"num_experts": params.pop("n_experts"), "num_experts_per_tok": params.pop("n_experts_per_token")}
    params |= {"moe": moe} if architecture.n_experts else {}
    return params | {"tied_embeddings": params.pop("tied_embedding")}
