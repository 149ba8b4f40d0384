"""Finding what a prompt lacks of a context: a conversation comes back without its oldest turns.

    context   system  turn 1  turn 2  turn 3  turn 4
    prompt    system  turn 2  turn 3  turn 5             the cut is turn 1; turn 4 is forgotten, turn 5 is to be read

Only equal tokens count, so what is kept is the prompt's own text, whatever it was part of before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MATCHED: Final = 8
"""Tokens that have to be equal for a place to be looked at."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A span [start, end) of a context that a prompt lacks, and how many tokens behind it the prompt has."""

    start: int
    end: int
    kept: int


def find_cut(context: NDArray[np.int64], prompt: NDArray[np.int64]) -> Cut | None:
    """Return the one cut behind what a context [n] and a prompt [m] share that keeps most, None where it is too little.

    Too little are fewer than eight tokens: such turn up anywhere.
    """
    start = common(context, prompt)
    behind, wanted = context[start + 1 :], prompt[start:]
    if min(len(behind), len(wanted)) < _MATCHED:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(behind, _MATCHED)
    places = np.flatnonzero((windows == wanted[:_MATCHED]).all(axis=1)).tolist()
    cuts = (Cut(start, start + 1 + place, common(behind[place:], wanted)) for place in places)
    return max(cuts, key=lambda cut: cut.kept, default=None)


def common(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """Return how many tokens two texts, [n] and [m], have in common from their start."""
    most = min(len(one), len(other))
    differing = np.flatnonzero(one[:most] != other[:most])
    return int(differing[0]) if len(differing) else most
