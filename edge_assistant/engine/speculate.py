"""Guessed tokens: several positions in one run, and not one token that would not have been drawn.

What was said comes again: names of devices, sentences of a document, the last answer. So where the last few tokens of
the context stood before, what followed them there is guessed to follow now (prompt lookup; A. Saxena, 2023). The
guesses are run with the token that is due, in one batch, which reads the weights once. Then each position is drawn as
it would have been; a guess counts only if it is what was drawn, and what follows a wrong one is forgotten:

    context   the lamp in the hall is on . the lamp
    guess                                           in the hall
    drawn                                           in the kitchen     two tokens for one run, the third forgotten

What is drawn is the same, but for the kernels' noise: they may round otherwise over several rows than over one, so
where the two best logits are closer than that, either may be drawn (tests/engine/test_near_ties.py measures it).

Where that finds nothing that pays, or less, a draft model may guess instead (`draft.py`).

`Pace` says how many guesses pay: that depends on how many come true and on what a row more costs, which is measured. It
says as well whether sequences had better take their steps together.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge_assistant.engine.draft import Draft
    from edge_assistant.engine.kv_cache import KvCache

_LOG = logging.getLogger(__name__)
_REMEMBERED: Final = 2048
"""Tokens of earlier answers that are looked through."""
_LONGEST_MATCH: Final = 3
"""Tokens that have to have stood together before; fewer do where so many have not."""
_ACCEPTED_AT_FIRST: Final = 0.5
_DRAFTED: Final = 0
"""In place of the length of a match, where a draft model has guessed."""
_DRAFTED_AT_FIRST: Final = 0.8
_ROW_AT_FIRST: Final = 0.4
"""What a row more is taken to cost before any was measured, in steps of one row."""
_LEARNING: Final = 0.1
_FORGETTING: Final = 0.001
_COST_AT_MOST: Final = 2.0


@dataclass(frozen=True, slots=True)
class Guess:
    """Tokens that may follow, and how many tokens of the context led to them; 0 where a draft model wrote them."""

    tokens: tuple[int, ...] = ()
    matched: int = 0


@dataclass(frozen=True, slots=True)
class Guesses:
    """What is run of guesses, and all that was found out: whether it came true is learnt of each."""

    run: tuple[int, ...] = ()
    made: tuple[Guess, ...] = ()


def look_up(text: NDArray[np.int64], most: int) -> Guess:
    """Return what followed where the end of a text [n] stood last before, as much of the end as can be found."""
    ends, matched = np.flatnonzero(text[:-1] == text[-1:]) + 1, 0
    while len(ends):
        last, matched = int(ends[-1]), matched + 1
        if matched == _LONGEST_MATCH:
            break
        ends = ends[ends > matched]
        ends = ends[text[ends - matched - 1] == text[-matched - 1]]
    return Guess(tuple(text[last : last + most].tolist()), matched) if matched else Guess()


@dataclass(slots=True)
class Pace:
    """How many guesses pay here: tokens for the time, by what was accepted and what runs took."""

    row_cost: float = _ROW_AT_FIRST
    """What a row more costs, in steps of one row: at first what `edge-assistant tune` found, where it was run."""
    draft_cost: float = inf
    """What a token of the draft model costs, in steps; infinite where there is none."""
    _accepted: dict[int, float] = field(default_factory=dict)
    """By the length of the match: how often the next token was the one that was guessed."""
    _step_s: float = 0.0
    _sequence: float = _ROW_AT_FIRST
    """What a sequence more costs in a batch, in steps of one."""

    def worth(self, guess: Guess) -> int:
        """Return how many of the guesses to run, 0 where a single step is better."""
        return _fastest(self._share(guess.matched), len(guess.tokens), self.row_cost)[0]

    def to_draft(self, most: int, found: Guess) -> int:
        """Return how many tokens a draft had better write, of at most `most`; 0 where what was found is as good.

        What did not pay is thought better of, a little at each time: it is tried again, now and then.
        """
        if not self._step_s or self.draft_cost == inf:
            return 0
        share = self._share(_DRAFTED)
        count, rate = _fastest(share, most, self.row_cost + self.draft_cost)
        if count == 0:
            self._accepted[_DRAFTED] = share + _FORGETTING * (_DRAFTED_AT_FIRST - share)
        return count if rate > _fastest(self._share(found.matched), len(found.tokens), self.row_cost)[1] else 0

    def ran(self, rows: int, seconds: float) -> None:
        """Take in what a run of so many rows took."""
        if rows == 1:
            self._step_s += _LEARNING * (seconds - self._step_s) if self._step_s else seconds
        elif self._step_s:
            row = (seconds / self._step_s - 1) / (rows - 1)
            self.row_cost += _LEARNING * (max(row, 0.0) - self.row_cost)

    def drafted(self, tokens: int, seconds: float) -> None:
        """Take in what a draft took to write so many tokens."""
        if self._step_s and tokens:
            self.draft_cost += _LEARNING * (seconds / tokens / self._step_s - self.draft_cost)

    def together(self, more: int) -> bool:
        """Return whether a batch that has `more` sequences more takes less time than a step of its own.

        What did not pay is thought better of, a little at each time: it is tried again, now and then.
        """
        if self._sequence * more < 1:
            return True
        self._sequence -= _FORGETTING * (self._sequence - _ROW_AT_FIRST)
        return False

    def ran_together(self, sequences: int, seconds: float) -> None:
        """Take in what a batch of so many sequences took; what else the machine did in it counts only so far."""
        if self._step_s and sequences > 1:
            cost = (seconds / self._step_s - 1) / (sequences - 1)
            self._sequence += _LEARNING * (min(max(cost, 0.0), _COST_AT_MOST) - self._sequence)

    def came(self, guess: Guess, drawn: Sequence[int]) -> None:
        """Take in what was drawn where a guess was made, whether it was run or not."""
        if guess.tokens and drawn:
            share = self._share(guess.matched)
            self._accepted[guess.matched] = share + _LEARNING * ((guess.tokens[0] == drawn[0]) - share)

    def _share(self, matched: int) -> float:
        return self._accepted.get(matched, _ACCEPTED_AT_FIRST if matched else _DRAFTED_AT_FIRST)


def _fastest(share: float, most: int, cost: float) -> tuple[int, float]:
    """Return how many guesses, each of that cost in steps, bring the most tokens for the time, and how many a step."""
    best, best_rate = 0, 1.0
    expected = likely = 1.0
    for count in range(1, most + 1):
        likely *= share
        expected += likely
        rate = expected / (1 + cost * count)
        if rate > best_rate:
            best, best_rate = count, rate
    return best, best_rate


class Speculator:
    """The guesses of one engine: over the context and its last answers, as many as pay."""

    def __init__(self, most: int, pace: Pace, draft: Draft | None = None) -> None:
        """At most `most` tokens are guessed at a time; 0 guesses none."""
        self._most, self.pace, self._draft = most, pace, draft
        self._answers = np.empty(0, np.int64)

    def guess(self, cache: KvCache, due: Sequence[int], most: int) -> Guesses:
        """Return what may follow the context of a cache and the tokens due behind it, at most `most` tokens."""
        most = min(most, self._most)
        if most < 1:
            return Guesses()
        found = look_up(np.concatenate([self._answers, cache.context, due]), most)
        if drafted := self._drafted(cache, due, self.pace.to_draft(most, found)):
            return Guesses(drafted, (found, Guess(drafted, _DRAFTED)))
        return Guesses(found.tokens[: self.pace.worth(found)], (found,))

    def came(self, guesses: Guesses, drawn: Sequence[int]) -> None:
        """Take in what was drawn where guesses were made."""
        for guess in guesses.made:
            self.pace.came(guess, drawn)

    def close(self) -> None:
        """Give the draft's memory back."""
        self._draft = None

    def _drafted(self, cache: KvCache, due: Sequence[int], most: int) -> tuple[int, ...]:
        if self._draft is None or most == 0:
            return ()
        started = perf_counter()
        try:
            tokens, read = self._draft.guess(cache, due, most)
        except Exception as error:  # noqa: BLE001 - no answer needs a guess
            _LOG.warning("the draft model fails, and guesses no more: %s", error)
            self._draft, self.pace.draft_cost = None, inf
            return ()
        if read <= len(due) + self._most:  # what is read of a prompt says nothing of a step
            self.pace.drafted(len(tokens), perf_counter() - started)
        return tokens

    def remember(self, answer: Sequence[int]) -> None:
        """Keep an answer, as long as there is room: what was said once is said again."""
        self._answers = np.concatenate([self._answers, np.array(answer, np.int64)])[-_REMEMBERED:]
