"""What a bundle will weigh, on the disk and in a board's memory, known before a weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_assistant_export.weights import ExpertMatrices, Matrix, Weights, plan_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_assistant.bundle import Architecture, CacheSize, CacheSpec, Manifest, Quantization

# Python, numpy, onnxruntime and the assistant around them; with a model of 0.3 MB an engine alone holds 82 MiB.
_RUNTIME_BYTES: Final = 120 << 20
# Tokens of a prompt that are read at once, and the buffers as wide as the feed-forward layer that live together then.
_PREFILL_TOKENS: Final = 256
_WIDE_BUFFERS: Final = 5
_FLOAT32_BYTES: Final = 4
# MatMulNBits' accuracy level that multiplies in int8.
_INT8_LEVEL: Final = 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes, but for `cache` and `parameters`."""

    bundle: int
    """Of the folder on the disk."""
    memory: int
    """Of the board's process without its cache."""
    cache: CacheSize
    """Of the cache, by the tokens of its context."""
    read_per_token: int
    """Of weights, which every token that is written reads: what the memory's bandwidth is divided by."""
    parameters: int
    """How many weights those are: all but an embedding of its own."""

    def memory_with(self, tokens: int) -> int:
        """Of the board's process whose cache holds so many tokens."""
        return self.memory + self.cache.of(tokens)


def estimate(manifest: Manifest) -> Estimate:
    """Return what the bundle that the manifest describes will need."""
    return estimate_of(manifest.architecture, manifest.quantization, manifest.cache)


@lru_cache(maxsize=64)  # a refusal asks the same for every board
def estimate_of(architecture: Architecture, quantization: Quantization, cache: CacheSpec) -> Estimate:
    """Return what a bundle of this shape will need.

    onnxruntime packs quantised matrices anew when it loads them: it adds a sum to every scale, both in float32 (x86; it
    is less on ARM).
    An embedding of its own is only read where a token asks for it, and stays in the file.
    """
    weights = plan_weights(architecture, quantization)
    embedding = () if weights.lm_head is weights.embedding else (weights.embedding,)
    used = [matrix for matrix in weights.matrices if matrix not in embedding]
    packed = sum(_packed_bytes(matrix) for matrix in used)
    return Estimate(
        bundle=weights.file.size,
        memory=packed + _scratch_bytes(used, quantization) + fixed_bytes(architecture),
        cache=cache.size(architecture),
        read_per_token=sum(matrix.nbytes for matrix in used) - _idle_bytes(weights, architecture),
        parameters=sum(matrix.n_rows * matrix.row_size for matrix in used),
    )


def _idle_bytes(weights: Weights, architecture: Architecture) -> int:
    """Return the bytes of the experts that no router picked for a token."""
    idle = architecture.n_experts - architecture.n_experts_per_token
    mixtures = (layer.feed_forward for layer in weights.layers if isinstance(layer.feed_forward, ExpertMatrices))
    return sum((one.fc1.nbytes + one.fc2.nbytes) * idle // architecture.n_experts for one in mixtures)


def _packed_bytes(matrix: Matrix) -> int:
    scales = 0 if matrix.scales is None else int(np.prod(matrix.scales.shape))
    return matrix.data.nbytes + 2 * _FLOAT32_BYTES * scales


def _scratch_bytes(matrices: Sequence[Matrix], quantization: Quantization) -> int:
    """Return the size of the largest matrix that is made float32 before a product, as 8 bits below level 4 are."""
    if quantization.accuracy_level == _INT8_LEVEL:
        return 0
    return max((4 * matrix.n_rows * matrix.row_size for matrix in matrices if matrix.bits == 8), default=0)


def fixed_bytes(architecture: Architecture) -> int:
    """Return what the board's process takes beside weights and cache: a model with fewer layers needs it as well."""
    return _RUNTIME_BYTES + _PREFILL_TOKENS * _WIDE_BUFFERS * 4 * architecture.ffn_size
