"""The key/value cache: from a byte budget to a capacity, and which tokens lie in it.

The capacity is known before anything is allocated. Take Mistral 7B (32 layers, 8 kv heads, heads of 128) with a
float32 cache and a budget of 1 GiB. One token costs a key and a value in every layer:

    2 * 32 layers * 8 n_kv_heads * 128 head_dim * 4 bytes = 262,144 bytes
    1,073,741,824 bytes / 262,144 bytes                   = 4,096 tokens

An int8 cache of the same budget holds 16,384. The rotary tables bound it as well: beyond `max_positions` no token
can be placed, so a larger budget is not spent.

Keys and values of a layer are one buffer each, [1, n_kv_heads, capacity, head_dim], which the graph reads as past and
writes as present. Position p of the context is row p, for always, so going back is only to forget the last tokens: the
rows stay and are overwritten. Here, of a context of seven tokens, a new prompt has the first four in common:

    tokens   11 12 13 14 15 16 17  .  .        length 7
    prompt   11 12 13 14 99 98
    tokens   11 12 13 14  .  .  .  .  .        length 4, two tokens left to read
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge_assistant.bundle import cache_bytes_per_token
from edge_assistant.errors import CacheBudgetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_assistant.bundle import Manifest

_ALIGNMENT = 64
"""A cache line, and the widest vector register."""


def capacity_of(manifest: Manifest, budget: int) -> int:
    """Return how many tokens a budget in bytes holds, at most as many as the rotary tables cover.

    Raises:
        CacheBudgetError: Not one token fits.
    """
    per_token = cache_bytes_per_token(manifest)
    if budget < per_token:
        raise CacheBudgetError(budget, per_token, manifest.architecture.max_positions)
    return min(budget // per_token, manifest.architecture.max_positions)


class KvCache:
    """The buffers of one sequence, and the tokens whose keys and values they hold."""

    def __init__(self, manifest: Manifest, capacity: int) -> None:
        """Allocate `capacity` positions; pages become resident as they are first written."""
        architecture = manifest.architecture
        shape = (1, architecture.n_kv_heads, capacity, architecture.head_dim)
        dtype = np.dtype(manifest.cache.type)
        self.capacity = capacity
        self.layers = [(_aligned(shape, dtype), _aligned(shape, dtype)) for _ in range(architecture.n_layers)]
        """Keys and values of each layer, [1, n_kv_heads, capacity, head_dim]."""
        self.tokens = np.zeros((1, capacity), np.int64)
        """The context, [1, capacity]; only the first `length` count."""
        self.length = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return sum(key.nbytes + value.nbytes for key, value in self.layers)

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        self.length = min(self.length, length)

    def keep_prefix(self, prompt: NDArray[np.int64]) -> int:
        """Rewind to what the context and a prompt [n] have in common, and return its length.

        The prompt's last token is never kept: it has to be run for its logits.
        """
        shared = min(self.length, len(prompt) - 1)
        differing = np.flatnonzero(self.tokens[0, :shared] != prompt[:shared])
        self.rewind(int(differing[0]) if len(differing) else shared)
        return self.length


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return zeros that start at a multiple of the alignment, which numpy alone does not promise."""
    nbytes = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + nbytes].view(dtype).reshape(shape)
