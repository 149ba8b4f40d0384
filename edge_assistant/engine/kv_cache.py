"""The key/value cache: from a byte budget to a capacity, and which tokens lie in it.

The capacity is known before anything is allocated. Take Mistral 7B (32 layers, 8 kv heads, heads of 128) with a
float32 cache and a budget of 1 GiB. One token costs a key and a value in every layer:

    2 * 32 layers * 8 n_kv_heads * 128 head_dim * 4 bytes = 262,144 bytes
    1,073,741,824 bytes / 262,144 bytes                   = 4,096 tokens

A float16 cache of the same budget holds 8,192, an int8 cache 16,384. The rotary tables bound it as well: beyond
`max_positions` no token can be placed, so a larger budget is not spent. Layers whose window is bounded stop growing:
with the window of 4,096 that Mistral 7B v0.1 has in all of them, 1.25 GiB hold every context (`bundle/cache_size.py`).

Keys and values of a layer are one buffer each, [1, n_kv_heads, rows, head_dim], which the graph reads as past and
writes as present. In a layer that keeps all, position p of the context is row p, for always, so going back is only to
forget the last tokens: the rows stay and are overwritten. Here, of a context of seven tokens, a new prompt has the
first four in common:

    tokens   11 12 13 14 15 16 17  .  .        length 7
    prompt   11 12 13 14 99 98
    tokens   11 12 13 14  .  .  .  .  .        length 4, two tokens left to read

What comes back without its oldest turns is kept too, where the caller allows it: those are evicted from the middle
(`evict.py`, `cut.py`). So are the oldest tokens where an answer outgrows the capacity, but for the first few: attention
that finds no better place rests on those, and without them a model is lost (attention sinks, arXiv 2309.17453).

Several sequences share the budget evenly, so all have one capacity. Their rows lie side by side: a layer's buffers are
[sequences, n_kv_heads, rows, head_dim], and each sequence has its view of one (`slots`).

A bounded layer drops rows (`window.py`), so a context that has outgrown it can be taken back by `REWINDABLE` tokens,
not by any number. What a new prompt shares with it is kept where that goes back no farther; else all is read anew.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from edge_assistant.bundle import bounded_rows
from edge_assistant.engine.cut import common, find_cut
from edge_assistant.engine.evict import Evictor
from edge_assistant.engine.memory import HOST, on_host, rows_of, zeros
from edge_assistant.engine.window import BoundedWindow
from edge_assistant.errors import CacheBudgetError, EvictionError, RewindError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from edge_assistant.bundle import Manifest
    from edge_assistant.engine.cut import Cut
    from edge_assistant.engine.memory import Buffer, Device

_SINKS: Final = 4
"""Tokens at the start of a context that stay when its oldest are evicted."""
_EVICTED_SHARE: Final = 4
"""One in so many tokens of the capacity is evicted at a time: the rest is moved, which costs as much for one."""

Layer: TypeAlias = "tuple[Buffer, Buffer]"
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


def slots(
    manifest: Manifest,
    capacity: int,
    sequences: int,
    key_scales: Sequence[NDArray[np.float32]] = (),
    device: Device = HOST,
) -> tuple[list[Layer], list[KvCache]]:
    """Allocate for so many sequences of `capacity` tokens each; the host's pages become resident as they are written.

    Returns the buffers of each layer, [sequences, n_kv_heads, rows, head_dim], and the sequences, views of them.
    """
    layers = _buffers(manifest, capacity, sequences, device)
    views = ([(key[n : n + 1], value[n : n + 1]) for key, value in layers] for n in range(sequences))
    return layers, [KvCache(manifest, capacity, view, key_scales, device) for view in views]


class KvCache:
    """The buffers of one sequence, and the tokens whose keys and values they hold."""

    def __init__(
        self,
        manifest: Manifest,
        capacity: int,
        layers: list[Layer] | None = None,
        key_scales: Sequence[NDArray[np.float32]] = (),
        device: Device = HOST,
    ) -> None:
        """Hold `capacity` tokens in the layers given, or in buffers of its own, in a device's memory.

        `key_scales` are those of `evict.py`; an int8 cache needs them to evict.
        """
        architecture = manifest.architecture
        self.capacity, self.device = capacity, device
        self._manifest, self._key_scales = manifest, key_scales
        self.layers = layers or _buffers(manifest, capacity, 1, device)
        """Keys and values of each layer, [1, n_kv_heads, rows, head_dim]."""
        bounded = [buffer for layer in self.layers for buffer in layer if buffer.shape[2] < capacity]
        window = architecture.sliding_window
        self._window = BoundedWindow(bounded, window) if bounded and window is not None else None
        self._evictor = None if bounded else Evictor(architecture, self.layers, key_scales)
        self._exact = capacity
        """How many tokens from the start no eviction has touched."""
        self.tokens = np.zeros((1, capacity), np.int64)
        """The context, [1, capacity]; only the first `length` count."""
        self.length = 0
        self.comes_again = 0
        """How many tokens from the start may come again in another prompt: only those are moved up."""

    def on(self, device: Device) -> KvCache:
        """Return this cache, or where it lies in other memory an empty one of its capacity on the device."""
        if device == self.device:
            return self
        return KvCache(self._manifest, self.capacity, None, self._key_scales, device)

    @property
    def context(self) -> NDArray[np.int64]:
        """The tokens that are held [length], a view."""
        return self.tokens[0, : self.length]

    @property
    def can_evict(self) -> bool:
        """Whether a span can be taken out of the context."""
        return self._evictor is not None

    @property
    def exact(self) -> int:
        """How many tokens from the start have the rows that reading them afresh would give."""
        return min(self.length, self._exact)

    @property
    def moved(self) -> int:
        """How many tokens that come again have rows that an eviction has moved, or that were read behind such."""
        return max(0, min(self.comes_again, self.length) - self.exact)

    def longest_step(self, most: int) -> int:
        """Return how many tokens the next step had better read, of `most`: it ends where a window is full."""
        return min(most, self._window.longest_step(self.length)) if self._window else most

    @property
    def longest_taken_back(self) -> int:
        """Return the most tokens of a step of which any may be taken back; a bounded window wants it no longer."""
        free = self.capacity - self.length
        return min(free, self._window.window) if self._window else free

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

    @contextmanager
    def step_again(self, most: int) -> Generator[NDArray[np.int64]]:
        """Give the first of the `moved` tokens, at most so many, as `step` does: their rows are written anew in place.

        Those behind stay as they are, and count as before, so that nothing is lost whichever such step is the last.
        """
        start, length = self.exact, self.length
        end = start + min(most, self.moved)
        self.length = 0
        yield self.tokens[:, start:end]
        self.length, self._exact = length, end if end < length else self.capacity

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
        self.comes_again = min(self.comes_again, length)
        if length <= self._exact:
            self._exact = self.capacity

    def evict(self, start: int, end: int) -> None:
        """Take the tokens [start, end) out of the context: those behind move up, and carry on what they saw.

        Raises:
            EvictionError: A layer's window is bounded, so that its rows are not where the context's tokens are.
        """
        if self._evictor is None:
            raise EvictionError(end - start)
        if end >= self.length:
            self.rewind(start)
            return
        length, self.length = self.length, 0
        self._evictor.remove(start, end, length)
        self.tokens[0, start : start + length - end] = self.tokens[0, end:length]
        self.length = length - (end - start)
        self._exact = min(self._exact, start)
        self.comes_again = max(min(self.comes_again, start), self.comes_again - (end - start))

    def make_room(self, tokens: int) -> slice | None:
        """Evict the oldest tokens behind the first few, a quarter of the capacity or more, where so many do not fit.

        Returns those that went. Raises:
            EvictionError: As for `evict`.
        """
        lacking = self.length + tokens - self.capacity
        if lacking <= 0:
            return None
        start = min(_SINKS, self.capacity // 2)
        gone = slice(start, min(self.length, start + max(lacking, self.capacity // _EVICTED_SHARE)))
        self.evict(gone.start, gone.stop)
        self.comes_again = min(self.comes_again, start)  # no other prompt begins with what an answer goes on from
        return gone

    def keep_shared(self, prompt: NDArray[np.int64], cache_reuse: int) -> int:
        """Keep what the context shares with a prompt [n], as `keep_prefix` does, or with one span evicted behind that.

        It is evicted where by that `cache_reuse` tokens or more are kept behind it, of those that `comes_again` counts.
        What a prompt says for once, such as the states of a home, is not moved, nor what was said in sight of it: that
        would carry on what may no longer be so. Where `cache_reuse` is 0, nothing is kept that an eviction has touched:
        the rows are those of a fresh prefill.
        """
        cut = self._cut(prompt, cache_reuse)
        if cut:
            self.rewind(cut.end + cut.kept)
            self.evict(cut.start, cut.end)
            return self.length
        if cache_reuse == 0:
            self.rewind(self.exact)
        return self.keep_prefix(prompt)

    def keeps(self, prompt: NDArray[np.int64], cache_reuse: int) -> int:
        """Return how many tokens of the context `keep_shared` would keep, and change nothing."""
        cut = self._cut(prompt, cache_reuse)
        if cut:
            return cut.start + cut.kept
        shared = self.shared(prompt)
        return shared if cache_reuse else min(shared, self.exact)

    def _cut(self, prompt: NDArray[np.int64], cache_reuse: int) -> Cut | None:
        cut = find_cut(self.context[: self.comes_again], prompt[:-1]) if cache_reuse and self.can_evict else None
        return cut if cut and cut.kept >= cache_reuse else None

    @property
    def longest_prefix(self) -> int:
        """Return how many tokens `put` can hold: no layer has dropped any of so many."""
        rows: list[int] = [key.shape[2] for key, _ in self.layers]
        return min(self.capacity, *rows)

    def holds_prefix(self, length: int) -> bool:
        """Return whether the rows of the first `length` tokens are where they were written, and no eviction's doing."""
        return length <= self.exact and not (self._window and self._window.dropped(self.length))

    def lends(self, text: NDArray[np.int64]) -> int:
        """Return how many tokens of the text's beginning [n] it has the rows of that a prefill would give."""
        shared = min(common(self.context, text), self.exact)
        return shared if self.holds_prefix(shared) else 0

    @property
    def token_bytes(self) -> int:
        """Return what `copy_rows` takes for a token."""
        buffers = (buffer for layer in self.layers for buffer in layer)
        return sum(buffer.shape[1] * buffer.shape[3] * buffer.dtype.itemsize for buffer in buffers)

    def rows(self, start: int, end: int) -> list[list[NDArray[Any]]]:
        """Return some tokens' keys and values by layer, [n_kv_heads, n, head_dim] each; on the host they are views."""
        return [[rows_of(buffer)[0, :, start:end] for buffer in layer] for layer in self.layers]

    def copy_rows(self, start: int, end: int) -> NDArray[Any]:
        """Return a copy of some tokens' keys and values, [n_layers, 2, n_kv_heads, n, head_dim]."""
        return np.stack(self.rows(start, end))

    def put(self, ids: NDArray[np.int64], rows: NDArray[Any] | Sequence[Sequence[NDArray[Any]]]) -> None:
        """Append tokens [n] whose keys and values are known, as `copy_rows` or `rows` gave them."""
        start, end = self.length, self.length + len(ids)
        with self.step(ids):
            for layer, new in zip(self.layers, rows, strict=True):
                for buffer, new_rows in zip(layer, new, strict=True):
                    with on_host(buffer) as held:
                        held[0, :, start:end] = new_rows

    def shared(self, prompt: NDArray[np.int64]) -> int:
        """Return how many tokens `keep_prefix` would leave."""
        shared = common(self.context, prompt[:-1])
        return shared if shared >= self.shortest() else 0

    def keep_prefix(self, prompt: NDArray[np.int64]) -> int:
        """Rewind to what the context and a prompt [n] have in common, or to nothing, and return what is left.

        The prompt's last token is never kept: it has to be run for its logits.
        """
        self.rewind(self.shared(prompt))
        return self.length


def _buffers(manifest: Manifest, capacity: int, sequences: int, device: Device) -> list[Layer]:
    """Return keys and values of each layer, [sequences, n_kv_heads, rows, head_dim]."""
    architecture, dtype = manifest.architecture, np.dtype(manifest.cache.type)
    layers: list[Layer] = []
    for layer in range(architecture.n_layers):
        rows, window = capacity, architecture.window_of(layer)
        if manifest.cache.window == "bounded" and window is not None:
            rows = bounded_rows(window, capacity)
        shape = (sequences, architecture.n_kv_heads, rows, architecture.head_dim)
        key, value = (zeros(shape, dtype, device, sparse=rows > capacity) for _ in range(2))
        layers.append((key, value))
    return layers
