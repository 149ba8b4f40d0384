"""Rotary positions: how fast each pair of channels of a head turns (RoFormer, arXiv 2104.09864).

Pair j of a head turns by theta^(-2j / head_dim) a position. YaRN (arXiv 2309.00071) stretches that over a longer
context than the model was first trained for: pairs that turn often within the first length stay, those that turn less
than once slow down by the factor of the stretch, and those between are blended.

    original_positions 16384, beta_fast 32: a pair that turns more than 32 times in 16,384 positions stays as it is
    beta_slow 1, factor 16:                 one that turns less than once turns 16 times as slowly

The graph's tables are made of these (`edge_assistant_export/rotary.py`), and the board moves cached keys by them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_assistant.bundle.language import Architecture, Yarn


def frequencies(architecture: Architecture) -> NDArray[np.float64]:
    """Return the radians that each pair (j, j + head_dim / 2) turns a position, [head_dim / 2]."""
    plain = architecture.rope_theta ** (
        -np.arange(0, architecture.head_dim, 2, dtype=np.float64) / architecture.head_dim
    )
    return plain if architecture.yarn is None else _stretched(plain, architecture, architecture.yarn)


def _stretched(plain: NDArray[np.float64], architecture: Architecture, yarn: Yarn) -> NDArray[np.float64]:
    """Return the frequencies that YaRN makes of plain ones: the bounds of the blend are whole pairs."""
    low = max(np.floor(_pair_that_turns(yarn.beta_fast, architecture, yarn)), 0)
    high = min(np.ceil(_pair_that_turns(yarn.beta_slow, architecture, yarn)), architecture.head_dim - 1)
    slowed = np.clip((np.arange(len(plain)) - low) / max(high - low, 0.001), 0, 1)
    blended: NDArray[np.float64] = plain * (1 - slowed) + plain / yarn.factor * slowed
    return blended


def _pair_that_turns(times: float, architecture: Architecture, yarn: Yarn) -> float:
    """Return the pair, as a real number, that turns so many times over the first length of context."""
    turns = yarn.original_positions / (times * 2 * np.pi)
    return float(architecture.head_dim * np.log(turns) / (2 * np.log(architecture.rope_theta)))
