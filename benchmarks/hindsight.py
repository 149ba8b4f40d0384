"""The cheapest runs that could have written an answer: as many guesses in each as with hindsight are best.

Guesses are those that the engine makes; how many of them would come true is known here. A run has at least the tokens
that are due: the one that was drawn last, and those that a grammar forces behind it. True guesses behind these save
runs of their own:

    f(i) = 0 where the answer ends with what is due from its token i on,
    f(i) = the least, over k of the true guesses, of cost(due + k, 1 + k) + f(i + due + k)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from recorded import Cost, RecordingEngine

from edge_assistant.config import EngineSettings
from edge_assistant.engine.grammar import Match
from edge_assistant.engine.lookup import held, look_up

GUESSES = EngineSettings().guesses
"""At most."""


@dataclass(frozen=True, slots=True)
class Again:
    """An answer that is known, and what the engine guessed while it was not."""

    answer: Sequence[int]
    """With the stop id that ended it, if one did; its last token is drawn and not run."""
    ends: Sequence[int]
    """For each of its tokens where those end that are due together with it, exclusive."""
    guesses: Mapping[int, Sequence[int]]
    """By these ends, what is guessed to follow there: as much as there may be."""

    @classmethod
    def of(cls, engine: RecordingEngine, *, stopped: bool) -> Self:
        """Return what an engine answered last; `stopped` says that it was not cut off."""
        match = engine.params.grammar.begin() if engine.params.grammar else None
        answer, ends = list(engine.written), chains(engine.written, match)
        if stopped and not (match and match.ended):
            answer.append(min(engine.params.stop_ids))
            ends.append(len(answer))
        return cls(answer, ends, dict(_guessed(engine, answer, ends)))

    def seconds(self, cost: Cost, most: int) -> float:
        """Return what the runs behind the prompt take with as many guesses as there are in each, up to a number."""
        seconds, start = 0.0, 0
        while (end := self.ends[start]) < len(self.answer):
            guess = self.guesses[end][:most]
            seconds += cost(end - start + len(guess), 1 + len(guess))
            start = end + shared(guess, self.answer[end:-1])
        return seconds

    def least_seconds(self, cost: Cost) -> float:
        """Return what the cheapest runs behind the prompt take."""
        least = [0.0] * len(self.answer)
        for start in reversed(range(len(self.answer))):
            end = self.ends[start]
            if end < len(self.answer):
                true = shared(self.guesses[end], self.answer[end:-1])
                runs = (cost(end - start + more, 1 + more) + least[end + more] for more in range(true + 1))
                least[start] = min(runs)
        return least[0]


def _guessed(
    engine: RecordingEngine, answer: Sequence[int], ends: Sequence[int]
) -> Iterator[tuple[int, Sequence[int]]]:
    """Give for each end before the answer's own what the engine's lookup says to follow the tokens before it."""
    text = np.array([*engine.remembered, *engine.prompt, *answer], np.int64)
    before, start = len(text) - len(answer), 0
    match = engine.params.grammar.begin() if engine.params.grammar else None
    for end in sorted({*ends} - {len(answer)}):
        for token in answer[start:end] if match else ():
            match.accept(token)
        start = end
        yield end, held(look_up(text[: before + end], GUESSES), match, engine.params.stop_ids, GUESSES).tokens


def chains(written: Sequence[int], match: Match | None) -> list[int]:
    """Return for each token where those that a grammar forces behind it end, exclusive; the match goes on."""
    if match is None:
        return [*range(1, len(written) + 1)]
    ends: list[int] = []
    while len(ends) < len(written):
        chain = match.forced()
        if not chain:
            match.accept(written[len(ends)])
            chain = [written[len(ends)], *match.forced()]
        ends += [len(ends) + len(chain)] * len(chain)
    return ends[: len(written)]


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences share from their start."""
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)
