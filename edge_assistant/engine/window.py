"""The layers that keep a bounded window: which positions their buffers hold, and how far back a context may go.

GroupQueryAttention with sliding_window_cache drops rows by itself. With a window of W positions and a buffer of C >= W
rows, its documentation says, and tests/engine/test_window.py holds it to that, that after T tokens in whatever steps
row i is position D(T) + i, where

    D(T) = 0 for T <= C, else G * ceil((T - C) / G)        G = C - W + 1

So it drops G positions at once, whenever the buffer is full. Going back from T to T' tokens it would read row i as
position D(T') + i: with D(T') < D(T) the rows are in the wrong place, and those that were dropped are gone. Both are
mended here. The last C - W positions that a step drops are kept beside the buffer, and where D goes back by G, the rows
move up by G and those kept take their place. For W = 4, C = 6 (G = 3), two positions are kept:

    T = 6     rows 0 1 2 3 4 5       kept: -
    T = 7     rows 3 4 5 6 . .       kept: 1 2          the step dropped 0, 1 and 2
    T' = 5    rows . 1 2 3 4 .       kept: 1 2          position 5 will see 2, 3, 4 and itself: exact

`oldest` is the first position from which on all are held: in rows or kept. The next token, at T', sees itself and the
W - 1 before it, so going back to T' is exact where `oldest` is not beyond T' - W + 1, and always to nothing. From the
farthest that the context had reached, C - W + 1 tokens can be taken back, whatever the steps were, if none was longer
than the window; a longer one passes positions by that were never in a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge_assistant.engine.memory import on_host, rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge_assistant.engine.memory import Buffer


class BoundedWindow:
    """What the bounded layers of one context hold; all have the same window and capacity."""

    def __init__(self, buffers: Sequence[Buffer], window: int) -> None:
        """`buffers` are keys and values of the layers, [1, n_kv_heads, rows, head_dim] each, rows > window."""
        self._buffers = buffers
        self.window = window
        self._rows: int = buffers[0].shape[2]
        self._stride: int = self._rows - window + 1
        """G: how many positions are dropped at once."""
        sequences, n_kv_heads, _, head_dim = buffers[0].shape
        kept = (sequences, n_kv_heads, self._rows - window, head_dim)
        self._kept: list[NDArray[Any]] = [np.zeros(kept, buffer.dtype) for buffer in buffers]
        """The last positions before D, [1, n_kv_heads, rows - window, head_dim] each."""
        self.oldest = 0

    def dropped(self, length: int) -> int:
        """Return D: how many positions are no longer in a row after so many tokens."""
        return self._stride * max(0, -((self._rows - length) // self._stride))

    def longest_step(self, length: int) -> int:
        """Return after how many more tokens the buffers are full; from full ones, when they are again.

        A step that goes on beyond that drops positions which its own first tokens still see: the graph then copies the
        window of a layer, where it otherwise only moves rows.
        """
        return self._rows - (length - self.dropped(length)) or self._stride

    def before_step(self, start: int, end: int) -> None:
        """Keep what a step from `start` to `end` tokens is going to drop."""
        before, after = self.dropped(start), self.dropped(end)
        if after == before:
            return
        if after > start:
            self.oldest = after
            return
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            last = after - before
            kept[:] = rows_of(buffer)[:, :, last - kept.shape[2] : last]
        self.oldest = max(self.oldest, after - self._kept[0].shape[2])

    def shortest_after_rewind(self) -> int:
        """Return the fewest tokens, beside none, to which the context can be taken back."""
        return self.oldest + self.window - 1 if self.oldest else 0

    def rewind(self, start: int, length: int) -> None:
        """Put the rows where a context of `length` tokens has them, that had `start`; 0 starts anew."""
        if length == 0:
            self.oldest = 0
            return
        back = self.dropped(start) - self.dropped(length)
        if not back:
            return
        n_rows = max(0, length - self.dropped(start))
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            with on_host(buffer) as rows:
                rows[:, :, back : back + n_rows] = rows[:, :, :n_rows]
                rows[:, :, back - kept.shape[2] : back] = kept
