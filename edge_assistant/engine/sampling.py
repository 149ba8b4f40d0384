"""From logits to a token, in a fixed order.

0. grammar             tokens that it does not allow are out of the question
1. repetition penalty  a logit of a token that was seen is divided by it where positive, multiplied where negative
                       (CTRL, arXiv:1909.05858)
2. temperature         0 takes the best logit here and ends; else logits are divided by it
3. top_k               the k best stay
4. top_p               of their probabilities, the fewest that reach p together stay (arXiv:1904.09751)
5. min_p               those at least min_p times as probable as the best stay (arXiv:2407.01082)
6. one draw            among those that stayed, in proportion to their probabilities

A tie at the edge keeps all that are tied, so what stays depends on the logits alone and not on an order of sorting. The
draw is a function of the seed and the position alone (Philox is counter-based): a text that is continued in a second
generation goes on as it would have in the first.

A seed that is asked for is to give one text, however the steps are run. But kernels round several rows otherwise than
one, and that moves the edge between two tokens' shares a little, at times across the draw. So such an answer takes
steps of one row: nothing is guessed for it, and no other answer steps with it.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from edge_assistant.errors import LogitsError, SamplingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge_assistant.engine.grammar import Grammar

_SEED_BITS: Final = 64
_LEAST, _MOST = 1e-3, 1e3
"""Of what logits are divided and multiplied by: far beyond, float32 would not hold what comes of it."""
_BOUNDS: Final = "between 0.001 and 1000"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How an answer is chosen and when it ends."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    """Of the draws; None takes another one for each answer."""
    stop_ids: frozenset[int] = frozenset()
    """Tokens that end the answer, with a grammar only where it is whole; they are not part of it."""
    grammar: Grammar | None = None
    """What the answer must be; one that ends by max_tokens may be a part of it only."""
    overflow: Literal["error", "slide"] = "error"
    """What an answer does that may not fit the cache: it is refused, or goes on and the oldest tokens are forgotten."""

    def __post_init__(self) -> None:
        """Raise SamplingError for a value out of its range."""
        ranges = (
            ("max_tokens", self.max_tokens >= 1, "be at least 1"),
            ("temperature", self.temperature == 0 or _LEAST <= self.temperature <= _MOST, f"be 0, or {_BOUNDS}"),
            ("top_p", 0 < self.top_p <= 1, "be above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "be 0 (all) or above"),
            ("min_p", 0 <= self.min_p <= 1, "be between 0 and 1"),
            ("repetition_penalty", _LEAST <= self.repetition_penalty <= _MOST, f"be {_BOUNDS}"),
            ("overflow", self.overflow in ("error", "slide"), 'be "error" or "slide"'),
            ("seed", self.seed is None or 0 <= self.seed < 2**_SEED_BITS, "be between 0 and 2**64 - 1"),
        )
        for name, holds, must in ranges:
            if not holds:
                raise SamplingError(name, getattr(self, name), must)

    @property
    def one_row_a_step(self) -> bool:
        """Whether the text hangs on rounding that is another in steps of several rows, and shall not."""
        return self.seed is not None and self.temperature > 0


class Sampler:
    """Draws the tokens of one generation."""

    def __init__(self, params: SamplingParams, vocab_size: int) -> None:
        self._params = params
        self._seed = secrets.randbits(_SEED_BITS) if params.seed is None else params.seed
        self._seen = np.zeros(vocab_size, np.bool_)

    def see(self, ids: NDArray[np.int64] | Sequence[int]) -> None:
        """Note tokens that the repetition penalty counts as said."""
        self._seen[ids] = True

    def sample(self, logits: NDArray[np.float32], position: int, allowed: NDArray[np.int64] | None = None) -> int:
        """Return the token to stand at a position of the context, from logits [vocab]; note it as seen.

        `allowed` [n] are the tokens that may stand there, None where all may.

        Raises:
            LogitsError: The best of them, or any, is no number.
        """
        params = self._params
        if params.repetition_penalty != 1:
            logits = _penalise(logits, self._seen, params.repetition_penalty)
        if allowed is not None:
            logits = logits[allowed]
        best = int(logits.argmax())  # where any is no number, the first of these
        if not math.isfinite(logits[best]):
            raise LogitsError(position)
        if params.temperature == 0:
            chosen = best
        else:
            ids, weights = candidates(logits, params)
            chosen = int(ids[_draw(weights, self._seed, position)])
        token = chosen if allowed is None else int(allowed[chosen])
        self._seen[token] = True
        return token


def candidates(logits: NDArray[np.float32], params: SamplingParams) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the tokens [n] that stay, in ascending order, and weights [n]: probabilities up to a common factor.

    Temperature, which must not be 0, top_k, top_p and min_p are applied to logits [vocab].
    """
    ids = np.arange(len(logits))
    if 0 < params.top_k < len(logits):
        edge = np.partition(logits, -params.top_k)[-params.top_k]
        ids = np.flatnonzero(logits >= edge)
        logits = logits[ids]
    weights = logits - logits.max()  # the best weighs 1: no temperature overflows
    weights /= np.float32(params.temperature)
    np.exp(weights, out=weights)
    edge = np.float32(params.min_p)
    if params.top_p < 1:
        edge = max(edge, _nucleus_edge(weights, params.top_p))
    if edge > 0:
        stay = np.flatnonzero(weights >= edge)
        ids, weights = ids[stay], weights[stay]
    return ids, weights


def _penalise(logits: NDArray[np.float32], seen: NDArray[np.bool_], penalty: float) -> NDArray[np.float32]:
    said = np.flatnonzero(seen)
    logits = logits.copy()
    scores = logits[said]
    logits[said] = np.where(scores > 0, scores / np.float32(penalty), scores * np.float32(penalty))
    return logits


def _nucleus_edge(weights: NDArray[np.float32], top_p: float) -> np.float32:
    """Return the smallest weight among the fewest that together reach the share top_p of all."""
    total = weights.sum(dtype=np.float64)
    # All that lie below this floor together are at most 1 - top_p of the total: only the rest needs sorting.
    likely = np.sort(weights[weights >= (1 - top_p) * total / len(weights)])[::-1]
    reached = np.cumsum(likely, dtype=np.float64) >= top_p * total
    edge: np.float32 = likely[reached.argmax()] if reached.any() else likely[-1]
    return edge


def _draw(weights: NDArray[np.float32], seed: int, position: int) -> int:
    """Return an index drawn in proportion to weights [n]."""
    uniform = np.random.Generator(np.random.Philox(key=np.array([seed, position], np.uint64))).random()
    cumulated = np.cumsum(weights, dtype=np.float64)
    # The last needs no comparing: rounding must not put the draw behind it.
    return int(np.searchsorted(cumulated[:-1], uniform * cumulated[-1], side="right"))
