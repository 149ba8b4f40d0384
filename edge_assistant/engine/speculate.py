"""Guessed tokens: several positions in one run, and not one token that would not have been drawn.

What was said comes again: names of devices, sentences of a document, the last answer. So where the last tokens of the
context stood before, what followed them there is guessed to follow now (prompt lookup, `lookup.py`). The
guesses are run with the token that is due, in one batch, which reads the weights once. Then each position is drawn as
it would have been; a guess counts only if it is what was drawn, and what follows a wrong one is forgotten:

    context   the lamp in the hall is on . the lamp
    guess                                           in the hall
    drawn                                           in the kitchen     two tokens for one run, the third forgotten

What is drawn is the same, but for the kernels' noise: they may round otherwise over several rows than over one, so
where the two best logits are closer than that, either may be drawn (tests/engine/test_near_ties.py measures it).

Where that finds nothing that pays, or less, a draft model may guess instead (`draft.py`).

`Pace` says how many guesses pay: that depends on how likely each is, which is learnt by how far the places agree, and
on what a row more costs, which is measured. It says as well whether sequences had better take their steps together:
then a guess, which is run alone, has to save more than that does.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from edge_assistant.engine.lookup import END, Guess, Part, held, look_up

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from edge_assistant.engine.draft import Draft
    from edge_assistant.engine.grammar import Match
    from edge_assistant.engine.kv_cache import KvCache
    from edge_assistant.engine.lookup import Grounds

_LOG = logging.getLogger(__name__)
_REMEMBERED: Final = 4096
"""Tokens of earlier answers that are looked through."""
_AT_FIRST: Final = (0.5, 1)
"""How likely a guess is taken to come true before one was made, and how many seen guesses that is worth."""
_DRAFTED: Final = (0, 0)
"""The grounds of a token that a draft model has guessed."""
_DRAFTED_AT_FIRST: Final = (0.8, 8)
_ROW_AT_FIRST: Final = 0.4
"""What a row more is taken to cost before any was measured, in steps of one row."""
_SAVED: Final = 0.4
"""What a true guess saves of a run: not all, for guesses in that run would have come true as well."""
_LOOKING_AT_FIRST: Final = 0.1
"""What looking for a guess is taken to save, in steps."""
_ANSWER_AT_FIRST: Final = 32.0
"""Tokens that an answer is taken to have."""
_LEARNING: Final = 0.1
_LEARNING_LOOKING: Final = 0.01
_LEARNING_CHANCES: Final = 0.05
_FORGETTING: Final = 0.001
_COST_AT_MOST: Final = 2.0


@dataclass(frozen=True, slots=True)
class Guesses:
    """What is run of guesses, and all that was found out: whether it came true is learnt of each."""

    run: tuple[int, ...] = ()
    made: tuple[Guess, ...] = ()


@dataclass(slots=True)
class _Chance:
    """How often something came true, of late."""

    mean: float
    seen: int

    def learn(self, came: bool) -> None:
        self.seen += 1
        self.mean += max(_LEARNING_CHANCES, 1 / (self.seen + 1)) * (came - self.mean)


class _Instead(NamedTuple):
    """What steps without guesses cost, in steps of one row."""

    run: float
    """What a guess that comes true saves, beside its row."""
    more_alone: float
    """What it costs more to step alone than together with others."""


@dataclass(slots=True)
class Pace:
    """How many guesses pay here: what they save, by what came true and what runs took."""

    row_cost: float = _ROW_AT_FIRST
    """What a row more costs, in steps of one row: at first what `edge-assistant tune` found, where it was run."""
    draft_cost: float = inf
    """What a token of the draft model costs, in steps; infinite where there is none."""
    _chances: dict[Grounds, _Chance] = field(default_factory=dict)
    """How likely a part comes true where those before it have."""
    _step_s: float = 0.0
    _sequence: float = _ROW_AT_FIRST
    """What a sequence more costs in a batch, in steps of one."""
    _looking: float = _LOOKING_AT_FIRST
    """What looking for a guess saves, less what it takes, in steps: a very small model is faster without."""

    def look(self) -> bool:
        """Return whether to look for what was said before.

        What did not pay is thought better of, a little at each time: it is tried again, now and then.
        """
        if self._looking > 0:
            return True
        self._looking += _FORGETTING * (_LOOKING_AT_FIRST - self._looking)
        return False

    def looked(self, found: Guess, seconds: float) -> None:
        """Take in what was found, and how long that took."""
        if self._step_s:
            saved = self._best(found.parts, self._instead(0, 1.0))[1] - seconds / self._step_s
            self._looking += _LEARNING_LOOKING * (saved - self._looking)

    def worth(self, guess: Guess, others: int = 0) -> int:
        """Return how many tokens of a guess to run, 0 where a single step is better, or one that `others` take as well.

        Where rows cost too much for any they are thought better of, a little at each time: that is tried again, now and
        then.
        """
        count = self._best(guess.parts, self._instead(others, _SAVED))[0]
        if guess.parts and count == 0 and others == 0 and self.row_cost > _ROW_AT_FIRST:
            self.row_cost -= _FORGETTING * (self.row_cost - _ROW_AT_FIRST)
        return count

    def to_draft(self, most: int, found: Guess, others: int = 0) -> int:
        """Return how many tokens a draft had better write, of at most `most`; 0 where what was found is as good.

        Both are held against single steps, or such as `others` take as well. What did not pay is thought better of, a
        little at each time: it is tried again, now and then.
        """
        if not self._step_s or self.draft_cost == inf:
            return 0
        instead = self._instead(others, 1.0)
        count, saved = self._best([Part((END,), _DRAFTED)] * most, instead, self.draft_cost)
        if count == 0 and others == 0:
            chance = self._chance(_DRAFTED)
            chance.mean += _FORGETTING * (_DRAFTED_AT_FIRST[0] - chance.mean)
        return count if saved > self._best(found.parts, instead)[1] else 0

    def to_read(self, unread: int, left: int, most: int) -> bool:
        """Return whether a draft had better read so many tokens, to write `most` at a time where `left` are to come.

        A token that is read takes of one that is written what a row takes of a step. What drafting saves of each token
        is held against what looking for what was said before saves of it.
        """
        count, saved = self._best([Part((END,), _DRAFTED)] * most, self._instead(0, 1.0), self.draft_cost)
        tokens = sum(self._chance(_DRAFTED).mean ** ahead for ahead in range(count + 1))
        found = max(0.0, self._looking)
        return left * (saved / tokens - found / (1 + found)) > unread * self.draft_cost * self.row_cost

    def ran(self, rows: int, seconds: float) -> None:
        """Take in what a run of so many rows took; what else the machine did in it counts only so far."""
        if rows == 1:
            self._step_s += _LEARNING * (seconds - self._step_s) if self._step_s else seconds
        elif self._step_s:
            row = (seconds / self._step_s - 1) / (rows - 1)
            self.row_cost += _LEARNING * (min(max(row, 0.0), _COST_AT_MOST) - self.row_cost)

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
        at = 0
        for part in guess.parts:
            if at >= len(drawn):
                return
            came = part.tokens[0] == drawn[at]
            self._chance(part.grounds).learn(came)
            if not came:
                return
            at += len(part.tokens)

    def _chance(self, grounds: Grounds) -> _Chance:
        if grounds not in self._chances:
            self._chances[grounds] = _Chance(*(_DRAFTED_AT_FIRST if grounds == _DRAFTED else _AT_FIRST))
        return self._chances[grounds]

    def _instead(self, others: int, saved_of_run: float) -> _Instead:
        """Return what it is to step without guesses: alone, or together with `others` where that pays.

        A guess that comes true saves that share of a run alone.
        """
        if others == 0 or not self._sequence < 1:
            return _Instead(saved_of_run * max(0.0, 1 - self.row_cost), 0.0)
        token = (1 + self._sequence * others) / (1 + others)
        return _Instead(max(0.0, token - self.row_cost), 1 - self._sequence)

    def _best(self, parts: Iterable[Part], instead: _Instead, draft_cost: float = 0.0) -> tuple[int, float]:
        """Return how many tokens of some parts save most, and what they save, in steps.

        What comes true has to be run in any case, and saves what a run costs without its rows; what does not was run in
        vain.
        """
        best, best_saved = 0, 0.0
        likely, saved, count = 1.0, -instead.more_alone, 0
        for part in parts:
            count += len(part.tokens)
            likely *= self._chance(part.grounds).mean
            rows = self.row_cost * len(part.tokens)
            saved += likely * (instead.run + rows) - rows - draft_cost
            if saved > best_saved:
                best, best_saved = count, saved
        return best, best_saved


class Speculator:
    """The guesses of one engine: over the context and its last answers, as many as pay."""

    def __init__(self, most: int, pace: Pace, draft: Draft | None = None) -> None:
        """At most `most` tokens are guessed at a time; 0 guesses none."""
        self._most, self.pace, self._draft = most, pace, draft
        self._answers = np.empty(0, np.int64)
        self._answer = _ANSWER_AT_FIRST
        """How many tokens answers have, of late."""

    def guess(
        self,
        cache: KvCache,
        due: Sequence[int],
        most: int,
        match: Match | None,
        stop_ids: Container[int],
        others: int = 0,
    ) -> Guesses:
        """Return what may follow the context of a cache and the tokens due behind it, at most `most` tokens.

        `match` is how far these have come in a grammar; a token of `stop_ids` ends the answer. Without a guess the step
        could be taken together with `others`.
        """
        room, most = most, min(most, self._most)
        if most < 1:
            return Guesses()
        found = self._found(cache, due, most, match, stop_ids)
        if ids := self._drafted(cache, due, self.pace.to_draft(most, found, others), room):
            drafted = Guess(tuple(Part((token,), _DRAFTED) for token in ids))
            return Guesses(held(drafted, match, stop_ids, most).tokens, (found, drafted))
        return Guesses(found.tokens[: self.pace.worth(found, others)], (found,))

    def came(self, guesses: Guesses, drawn: Sequence[int]) -> None:
        """Take in what was drawn where guesses were made."""
        for guess in guesses.made:
            self.pace.came(guess, drawn)

    def close(self) -> None:
        """Give the draft's memory back."""
        self._draft = None

    def _found(
        self, cache: KvCache, due: Sequence[int], most: int, match: Match | None, stop_ids: Container[int]
    ) -> Guess:
        if not self.pace.look():
            return Guess()
        started = perf_counter()
        text = np.concatenate([self._answers, cache.context, due])
        found = held(look_up(text, most), match, stop_ids, most)
        self.pace.looked(found, perf_counter() - started)
        return found

    def _drafted(self, cache: KvCache, due: Sequence[int], most: int, room: int) -> tuple[int, ...]:
        if self._draft is None or most == 0:
            return ()
        caught_up = len(due) + self._most  # or fewer tokens are unread where it has followed
        unread, left = self._draft.unread(cache, due), min(room, round(self._answer))
        if unread > caught_up and not self.pace.to_read(unread, left, most):
            return ()
        started = perf_counter()
        try:
            tokens, read = self._draft.guess(cache, due, most)
        except Exception as error:  # noqa: BLE001 - no answer needs a guess
            _LOG.warning("the draft model fails, and guesses no more: %s", error)
            self._draft, self.pace.draft_cost = None, inf
            return ()
        if read <= caught_up:  # what is read of a prompt says nothing of a step
            self.pace.drafted(len(tokens), perf_counter() - started)
        return tokens

    def remember(self, answer: Sequence[int]) -> None:
        """Keep an answer, as long as there is room: what was said once is said again."""
        self._answers = np.concatenate([self._answers, np.array([*answer, END], np.int64)])[-_REMEMBERED:]
        self._answer += _LEARNING * (len(answer) - self._answer)
