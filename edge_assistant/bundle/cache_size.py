"""What a key/value cache weighs: the one place where positions become bytes, and bytes positions.

A layer costs a key and a value for every position it holds. Layers that attend to all hold every position of the
context. Under a bounded window cache the others hold no more than their window and twice `REWINDABLE`: so many rows
beyond the window in the buffer that the graph fills, and so many that it dropped last, kept beside it. Take Mistral 7B
v0.1 (32 layers, each with a window of 4,096, 8 key-value heads of 128) with a float32 cache:

    one position      2 * 32 layers * 8 heads * 128 * 4 bytes     = 262,144 bytes
    the most it holds 4,096 + 2 * 512                             = 5,120 positions
    32,768 positions  5,120 * 262,144 = 1,342,177,280 bytes, where a cache of full length takes 8,589,934,592

Where only some layers have a window, say 24 of the 32, a position beyond the 5,120th costs what the other 8 hold of it:

    32,768 positions  5,120 * 262,144 + 27,648 * 65,536           = 3,154,116,608 bytes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

REWINDABLE: Final = 512
"""Tokens at the end of a context that can always be taken back, though a window has passed over them.

A turn of the assistant takes back the one before it: the home's description, a question and an answer, some hundreds of
tokens, where reading a whole context anew takes a board minutes. Guessed tokens that turn out wrong are far fewer. And
as rows are dropped only at every 513th token, moving the others costs next to nothing.
"""

MOST_SEQUENCES: Final = 4
"""Caches of the longest context, unless more are asked for: seldom do more people of one home speak at once."""


@dataclass(frozen=True, slots=True)
class CacheSize:
    """Bytes of one model's cache by the tokens of context it holds."""

    per_token: int
    """What a position costs while every layer holds it."""
    per_late_token: int
    """What one costs beyond `bound`: keys and values of the layers that hold every position."""
    bound: int
    """The most positions that a layer with a window holds; where none has one, those of the whole context."""
    max_positions: int
    """The longest context."""

    def of(self, tokens: int) -> int:
        """Return the bytes of a cache for so many tokens."""
        return min(tokens, self.bound) * self.per_token + max(tokens - self.bound, 0) * self.per_late_token

    def holds(self, budget: int) -> int:
        """Return how many tokens a cache of so many bytes holds, at most the longest context."""
        rest = budget - self.of(self.bound)
        if rest < 0:
            return budget // self.per_token
        late = rest // self.per_late_token if self.per_late_token else self.max_positions
        return min(self.bound + late, self.max_positions)

    def sequences(self, budget: int) -> int:
        """Return how many caches of the longest context so many bytes hold, at least 1, at most `MOST_SEQUENCES`."""
        return max(1, min(MOST_SEQUENCES, budget // self.of(self.max_positions)))


def bounded_positions(window: int) -> int:
    """Return the most positions that a bounded layer holds, in its buffer and beside it."""
    return window + 2 * REWINDABLE


def bounded_rows(window: int, capacity: int) -> int:
    """Return the rows of a bounded layer's buffer where `capacity` tokens of context are to fit.

    What fits into the most that the layer holds is simply held. Where it is less than the window, the graph wants a
    buffer as long as the window all the same: rows beyond the capacity are never written and take no memory.
    """
    return max(window, capacity) if capacity <= bounded_positions(window) else window + REWINDABLE
