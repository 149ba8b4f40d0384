"""The key/value cache: from a byte budget to a capacity, and which tokens lie in it.

The capacity is known before anything is allocated. Take Mistral 7B (32 layers, 8 kv heads, heads of 128) with a
float32 cache and a budget of 1 GiB. One token costs a key and a value in every layer:

    2 * 32 layers * 8 n_kv_heads * 128 head_dim * 4 bytes = 262,144 bytes
    1,073,741,824 bytes / 262,144 bytes                   = 4,096 tokens

An int8 cache of the same budget holds 16,384. The rotary tables bound it as well: beyond `max_positions` no token
can be placed, so a larger budget is not spent. Layers whose window is bounded stop growing: with the window of 4,096
that Mistral 7B v0.1 has in all of them, 1.25 GiB hold every context (`bundle/cache_size.py`).

Keys and values of a layer are one buffer each, [1, n_kv_heads, rows, head_dim], which the graph reads as past and
writes as present. In a layer that keeps all, position p of the context is row p, for always, so going back is only to
forget the last tokens: the rows stay and are overwritten. Here, of a context of seven tokens, a new prompt has the
first four in common:

    tokens   11 12 13 14 15 16 17  .  .        length 7
    prompt   11 12 13 14 99 98
    tokens   11 12 13 14  .  .  .  .  .        length 4, two tokens left to read

Several sequences share the budget evenly, so all have one capacity. Their rows lie side by side: a layer's buffers are
[sequences, n_kv_heads, rows, head_dim], and each sequence has its view of one (`slots`).

A bounded layer drops rows (`window.py`), so a context that has outgrown it can be taken back by `REWINDABLE` tokens,
not by any number. What a new prompt shares with it is kept where that goes back no farther; else all is read anew.
"""

from __future__ import annotations

import mmap
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from edge_assistant.bundle import bounded_rows
from edge_assistant.engine.window import BoundedWindow
from edge_assistant.errors import CacheBudgetError, RewindError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from edge_assistant.bundle import Manifest

_ALIGNMENT = 64
"""A cache line, and the widest vector register."""

Layer: TypeAlias = "tuple[NDArray[Any], NDArray[Any]]"
"""Keys and values."""


def capacity_of(manifest: Manifest, budget: int, sequences: int = 1) -> int:
    """Return how many tokens each of some sequences holds that share a budget in bytes, at most `max_positions`.

    Raises:
        CacheBudgetError: Not one token fits.
    """
    size = manifest.cache_size
    if budget < sequences * size.per_token:
        whole = sequences * size.of(size.max_positions)
        raise CacheBudgetError(budget, sequences * size.per_token, whole, size.max_positions)
    return size.holds(budget // sequences)


def slots(manifest: Manifest, capacity: int, sequences: int) -> tuple[list[Layer], list[KvCache]]:
    """Allocate for so many sequences of `capacity` tokens each; pages become resident as they are first written.

    Returns the buffers of each layer, [sequences, n_kv_heads, rows, head_dim], and the sequences, views of them.
    """
    layers = _buffers(manifest, capacity, sequences)
    views = ([(key[n : n + 1], value[n : n + 1]) for key, value in layers] for n in range(sequences))
    return layers, [KvCache(manifest, capacity, view) for view in views]


class KvCache:
    """The buffers of one sequence, and the tokens whose keys and values they hold."""

    def __init__(self, manifest: Manifest, capacity: int, layers: list[Layer] | None = None) -> None:
        """Hold `capacity` tokens in the layers given, or in buffers of its own."""
        architecture = manifest.architecture
        self.capacity = capacity
        self.layers = layers or _buffers(manifest, capacity, 1)
        """Keys and values of each layer, [1, n_kv_heads, rows, head_dim]."""
        bounded = [buffer for layer in self.layers for buffer in layer if buffer.shape[2] < capacity]
        window = architecture.sliding_window
        self._window = BoundedWindow(bounded, window) if bounded and window is not None else None
        self.tokens = np.zeros((1, capacity), np.int64)
        """The context, [1, capacity]; only the first `length` count."""
        self.length = 0

    @property
    def context(self) -> NDArray[np.int64]:
        """The tokens that are held [length], a view."""
        return self.tokens[0, : self.length]

    def longest_step(self, most: int) -> int:
        """Return how many tokens the next step had better read, of `most`: it ends where a window is full."""
        return min(most, self._window.longest_step(self.length)) if self._window else most

    @contextmanager
    def step(self, ids: NDArray[np.int64] | Sequence[int]) -> Generator[NDArray[np.int64]]:
        """Append tokens [n], of which the graph reads the view [1, n] that this gives, and writes their rows inside.

        A step that fails or is interrupted leaves no context: nobody knows which rows it has written and dropped.
        """
        start, end = self.length, self.length + len(ids)
        self.tokens[0, start:end] = ids
        self.length = 0
        if self._window:
            self._window.before_step(start, end)
        yield self.tokens[:, start:end]
        self.length = end

    def shortest(self) -> int:
        """Return the fewest tokens, beside none, to which the context can be taken back."""
        return self._window.shortest_after_rewind() if self._window else 0

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens.

        Raises:
            RewindError: A bounded window has dropped what the next token would see; `length` is neither 0 nor
                `shortest()` or more.
        """
        length = min(self.length, length)
        if 0 < length < self.shortest():
            raise RewindError(self.length, length, self.shortest())
        start, self.length = self.length, 0
        if self._window:
            self._window.rewind(start, length)
        self.length = length

    @property
    def longest_prefix(self) -> int:
        """Return how many tokens `put` can hold: no layer has dropped any of so many."""
        rows: list[int] = [key.shape[2] for key, _ in self.layers]
        return min(self.capacity, *rows)

    def holds_prefix(self, length: int) -> bool:
        """Return whether the rows of the first `length` tokens are where they were written."""
        return length <= self.length and not (self._window and self._window.dropped(self.length))

    def copy_rows(self, start: int, end: int) -> NDArray[Any]:
        """Return a copy of some tokens' keys and values, [n_layers, 2, n_kv_heads, n, head_dim]."""
        return np.stack([np.stack([key[0, :, start:end], value[0, :, start:end]]) for key, value in self.layers])

    def put(self, ids: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Append tokens [n] whose keys and values are known, as `copy_rows` gave them."""
        start, end = self.length, self.length + len(ids)
        with self.step(ids):
            for (key, value), (keys, values) in zip(self.layers, rows, strict=True):
                key[0, :, start:end] = keys
                value[0, :, start:end] = values

    def shared(self, prompt: NDArray[np.int64]) -> int:
        """Return how many tokens `keep_prefix` would leave."""
        shared = max(0, min(self.length, len(prompt) - 1))
        differing = np.flatnonzero(self.tokens[0, :shared] != prompt[:shared])
        shared = int(differing[0]) if len(differing) else shared
        return shared if shared >= self.shortest() else 0

    def keep_prefix(self, prompt: NDArray[np.int64]) -> int:
        """Rewind to what the context and a prompt [n] have in common, or to nothing, and return what is left.

        The prompt's last token is never kept: it has to be run for its logits.
        """
        self.rewind(self.shared(prompt))
        return self.length


def _buffers(manifest: Manifest, capacity: int, sequences: int) -> list[Layer]:
    """Return keys and values of each layer, [sequences, n_kv_heads, rows, head_dim]."""
    architecture, dtype = manifest.architecture, np.dtype(manifest.cache.type)
    layers: list[Layer] = []
    for layer in range(architecture.n_layers):
        rows, window = capacity, architecture.window_of(layer)
        if manifest.cache.window == "bounded" and window is not None:
            rows = bounded_rows(window, capacity)
        shape = (sequences, architecture.n_kv_heads, rows, architecture.head_dim)
        zeros = _sparse if rows > capacity else _aligned
        layers.append((zeros(shape, dtype), zeros(shape, dtype)))
    return layers


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return zeros that start at a multiple of the alignment, which numpy alone does not promise."""
    nbytes = int(np.prod(shape)) * dtype.itemsize
    memory = np.zeros(nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + nbytes].view(dtype).reshape(shape)


def _sparse(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return aligned zeros of which only the pages that are written take memory, also where huge pages are the rule."""
    memory = mmap.mmap(-1, int(np.prod(shape)) * dtype.itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages does not know the word
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)
