"""What a bundle will weigh, on the disk and in a board's memory, known before a weight is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edge_assistant.bundle import Manifest, cache_bytes_per_token
from edge_assistant_export.weights import Matrix, plan_weights

if TYPE_CHECKING:
    from edge_assistant.bundle import Architecture

# Python, numpy, onnxruntime and the assistant around them; with a model of 0.3 MB an engine alone holds 82 MiB.
_RUNTIME_BYTES: Final = 120 << 20
# Tokens of a prompt that are read at once, and the buffers as wide as the feed-forward layer that live together then.
_PREFILL_TOKENS: Final = 256
_WIDE_BUFFERS: Final = 5


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes."""

    bundle: int
    """Of the folder on the disk."""
    memory: int
    """Of the board's process without its cache."""
    cache_per_token: int
    """Of the cache, for every token of context."""

    def memory_with(self, tokens: int) -> int:
        """Of the board's process whose cache holds so many tokens."""
        return self.memory + tokens * self.cache_per_token


def estimate(manifest: Manifest) -> Estimate:
    """Return what the bundle that the manifest describes will need.

    onnxruntime packs quantised matrices anew when it loads them: it adds a sum to every scale (x86; ARM needs no more).
    An embedding of its own is only read where a token asks for it, and stays in the file.
    """
    weights = plan_weights(manifest.architecture, manifest.quantization)
    embedding = () if weights.lm_head is weights.embedding else (weights.embedding,)
    packed = sum(_packed_bytes(matrix) for matrix in weights.matrices if matrix not in embedding)
    return Estimate(
        bundle=weights.file.size,
        memory=packed + _RUNTIME_BYTES + _activation_bytes(manifest.architecture),
        cache_per_token=cache_bytes_per_token(manifest),
    )


def _packed_bytes(matrix: Matrix) -> int:
    return matrix.data.nbytes + (2 * matrix.scales.nbytes if matrix.scales else 0)


def _activation_bytes(architecture: Architecture) -> int:
    return _PREFILL_TOKENS * _WIDE_BUFFERS * 4 * architecture.ffn_size
