"""Prompt lookup: what followed the end of a text where it stood before may follow it now (A. Saxena, 2023).

    text    the lamp in the hall is on . the lamp in the hall is off . the lamp
    guess                                                                      in the hall is off

    "the lamp" stood there twice: first behind nothing, then behind ".", as now; the second counts four times the first

Of several places those count more that share more tokens with the end, and by their weight they say what follows: "in"
on the grounds that all do, "off" as four fifths do. What a grammar refuses is not guessed, and what it forces behind a
guess is a part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, chain, takewhile
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Container

    from numpy.typing import NDArray

    from edge_assistant.engine.grammar import Match

END: Final = -1
"""Stands behind an answer that is remembered: what follows it there does not follow it."""
_PLACES: Final = 256
"""Places that are compared, the last."""
_LONGEST_MATCH: Final = 8
"""Tokens that are compared before a place."""
_WEIGHT: Final = 4.0
"""How much more a place counts for each token more that it shares with the end of the text."""

Grounds = tuple[int, int]
"""What speaks for a guess: how many fifths of the places, by their weight, agree; and whether one does, or more (2)."""


class Part(NamedTuple):
    """A token that may be drawn, with those that a grammar forces behind it: it saves one draw, or none of it does."""

    tokens: tuple[int, ...]
    grounds: Grounds


@dataclass(frozen=True, slots=True)
class Guess:
    """What may follow, each part only where all before it have come true."""

    parts: tuple[Part, ...] = ()

    @property
    def tokens(self) -> tuple[int, ...]:
        """All of its tokens."""
        return tuple(chain.from_iterable(part.tokens for part in self.parts))


def look_up(text: NDArray[np.int64], most: int) -> Guess:
    """Return what followed the end of a text [n] where it stood before, at most `most` tokens.

    The places' weights choose the first token; the last place that has it, the others.
    """
    ends = np.flatnonzero(text[:-1] == text[-1:])[-_PLACES:] + 1
    if not len(ends):
        return Guess()
    padded = np.concatenate([np.full(_LONGEST_MATCH, END), text, np.full(most, END)])
    around = padded[ends[:, None] + np.arange(_LONGEST_MATCH + most)]
    before, after = around[:, :_LONGEST_MATCH], around[:, _LONGEST_MATCH:]
    same = (before == padded[len(text) : len(text) + _LONGEST_MATCH])[:, ::-1]
    weights = _WEIGHT ** np.logical_and.accumulate(same, axis=1).sum(axis=1)
    said = (after[:, :1] == after[:, 0]) @ weights
    chosen = after[np.flatnonzero(said == said.max())[-1]]
    agree = np.logical_and.accumulate(after == chosen, axis=1)
    agreed = np.array([weights.sum(), *weights @ agree])
    grounds = zip((5 * agreed[1:] / agreed[:-1]).astype(int), np.minimum(agree.sum(axis=0), 2), strict=True)
    known = takewhile(lambda pair: pair[0] != END, zip(chosen.tolist(), grounds, strict=True))
    return Guess(tuple(Part((token,), (int(share), int(places))) for token, (share, places) in known))


def held(guess: Guess, match: Match | None, stop_ids: Container[int], most: int) -> Guess:
    """Return what of a guess may be drawn, and run to some use: at most `most` tokens, and none that ends the answer.

    What a grammar forces stands in it as the grammar has it.
    """
    going_on = tuple(takewhile(lambda part: part.tokens[0] not in stop_ids, guess.parts))
    if match is not None:
        chains = match.follow([part.tokens[0] for part in going_on])
        starts = accumulate(map(len, chains), initial=0)
        going_on = tuple(Part(tuple(ids), going_on[at].grounds) for at, ids in zip(starts, chains, strict=False))
    ends = accumulate(len(part.tokens) for part in going_on)
    return Guess(tuple(part for part, end in zip(going_on, ends, strict=True) if end <= most))
