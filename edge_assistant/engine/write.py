"""Writing an answer: what is due is run, what follows is drawn, and guesses and a grammar make steps longer.

A step runs the tokens that the cache does not hold yet and, where that pays, some guesses behind them; where one token
alone is to be run, it may be run together with those of other answers. Then every
position is drawn in its turn, from its own logits and its own chance, as it would have been without guesses; the step
ends at the first position that was not guessed, and the cache forgets the guesses from there on. What a grammar forces
is not drawn but taken.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from edge_assistant.engine.sampling import Sampler
from edge_assistant.engine.speculate import Guesses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge_assistant.engine.grammar import Match
    from edge_assistant.engine.kv_cache import KvCache
    from edge_assistant.engine.sampling import SamplingParams
    from edge_assistant.engine.session import Session
    from edge_assistant.engine.speculate import Speculator


class Writer:
    """Writes one answer to a prompt that was read, in whichever session holds its context."""

    def __init__(
        self, speculator: Speculator, prompt: NDArray[np.int64], params: SamplingParams, vocab_size: int
    ) -> None:
        self._speculator = speculator
        self._sampler = Sampler(params, vocab_size)
        self._sampler.see(prompt)
        self._match = params.grammar.begin() if params.grammar else None
        self._stop_ids = params.stop_ids
        self._one_row_a_step = params.one_row_a_step
        self._position = len(prompt)
        self.due: list[int] = []
        """Tokens of the answer that the cache does not hold."""
        self._guesses = Guesses()
        self.stopped = False
        """Whether the last token ends the answer, and is no part of it."""
        self.accepted = self.rejected = 0
        """How many guesses were run and came true, and how many did not."""

    @property
    def ended(self) -> bool:
        """Whether the grammar lets nothing follow."""
        return self._match is not None and self._match.ended

    def begin(self, logits: NDArray[np.float32]) -> list[int]:
        """Return the first tokens of the answer, at least one, from the logits [vocab] after the prompt."""
        self.due = self._next(logits)
        return self.due

    def guess(self, cache: KvCache, room: int, others: int) -> int:
        """Guess what follows a context and what is due; return how many tokens the next run has with that.

        More than `room` tokens will not be used of what it brings; one that is due alone could be run with `others`.
        """
        most = 0 if self._one_row_a_step else min(room - 1, cache.longest_taken_back - len(self.due))
        self._guesses = self._speculator.guess(cache, self.due, most, self._match, self._stop_ids, others)
        return len(self.due) + len(self._guesses.run)

    def step(self, session: Session) -> list[int]:
        """Run what is due and guessed; return the tokens that follow those returned before, at least one."""
        count = len(self._guesses.run)
        ids = [*self.due, *self._guesses.run]
        started = perf_counter()
        rows = session.run_rows(ids, count + 1) if count else session.run(ids)[np.newaxis]
        self._speculator.pace.ran(len(ids), perf_counter() - started)
        return self.draw(session.cache, rows)

    def draw(self, cache: KvCache, rows: NDArray[np.float32]) -> list[int]:
        """Return the tokens that follow, from the logits [1 + guesses, vocab] of what was run at the cache's end."""
        count = len(self._guesses.run)
        drawn, accepted = self._drawn(rows, self._guesses.run)
        cache.rewind(cache.length - count + accepted)
        self.accepted, self.rejected = self.accepted + accepted, self.rejected + count - accepted
        self._speculator.came(self._guesses, drawn)
        self.due = drawn[accepted:]
        return drawn

    def _drawn(self, rows: NDArray[np.float32], guessed: Sequence[int]) -> tuple[list[int], int]:
        """Return what is drawn from logits [1 + guesses, vocab], and how many of the guesses that makes true."""
        drawn: list[int] = []
        accepted = 0
        while True:
            drawn += self._next(rows[accepted])
            while accepted < min(len(drawn), len(guessed)) and drawn[accepted] == guessed[accepted]:
                accepted += 1
            if accepted < len(drawn) or self.stopped or self.ended:
                return drawn, accepted

    def _next(self, logits: NDArray[np.float32]) -> list[int]:
        """Return the token that stands next and those that it forces, at least one, from logits [vocab]."""
        if self._match is None:
            tokens = [self._sampler.sample(logits, self._position)]
            self.stopped = tokens[0] in self._stop_ids
        else:
            tokens = self._match.forced() or self._held(logits, self._match)
            self._sampler.see(tokens)
        self._position += len(tokens)
        return tokens

    def _held(self, logits: NDArray[np.float32], match: Match) -> list[int]:
        """Return a token that the grammar allows, and those it forces behind it.

        A stop id ends an answer that is whole. Elsewhere one that the grammar allows is a token like others.
        """
        token = self._sampler.sample(logits, self._position, match.allowed())
        if token in self._stop_ids and match.complete:
            self.stopped = True
            return [token]
        match.accept(token)
        return [token, *match.forced()]
