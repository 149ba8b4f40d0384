"""The work of an answer, step by step: it can stop after any, and go on in another slot of the cache.

What has to be in the cache is known at any time: the prompt, and of the answer all but what the writer has due. An
answer that is given a slot keeps what is there of that and reads the rest. One that has to leave its slot lets the
prefixes keep its rows, so that this is little, or nothing.
"""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from edge_assistant.engine.prefixes import Keep
from edge_assistant.engine.request import FinishReason, Progress, Said, Usage
from edge_assistant.engine.write import Writer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_assistant.engine.adapter import Adapter
    from edge_assistant.engine.prefixes import Prefixes
    from edge_assistant.engine.sampling import SamplingParams
    from edge_assistant.engine.session import Session
    from edge_assistant.engine.speculate import Speculator


class Answer:
    """A prompt that is read and an answer that is written."""

    def __init__(
        self,
        prompt: NDArray[np.int64],
        params: SamplingParams,
        keep: Keep,
        prefixes: Prefixes,
        speculator: Speculator,
        vocab_size: int,
        adapter: Adapter | None = None,
    ) -> None:
        """Nothing is computed before it is placed."""
        self.adapter = adapter
        self.begun = self.ended = False
        self.progress = Progress(Usage(len(prompt)))
        self._prompt, self._params, self._keep = prompt, params, keep
        self._prefixes, self._speculator = prefixes, speculator
        self._writer = Writer(speculator, prompt, params, vocab_size)
        self._said: list[int] = []
        self._gone: list[slice] = []
        """What was evicted to make room, each of the context as it then was."""
        self._unread = prompt
        self._most_held = 0
        """How many tokens of the prompt its slots have held at most."""
        self._session: Session | None = None

    @property
    def text(self) -> NDArray[np.int64]:
        """The tokens of which the cache holds all but the last before a token can be drawn."""
        # Of what is due only the first token: the others are run with it.
        read = len(self._said) - max(0, len(self._writer.due) - 1)
        text: NDArray[np.int64] = np.concatenate([self._prompt, np.array(self._said[:read], np.int64)])
        for gone in self._gone:
            text = np.delete(text, gone)
        return text

    @property
    def unread(self) -> bool:
        """Whether there is something to read."""
        return len(self._unread) > 0

    def place(self, session: Session) -> None:
        """Go on in a session, with what it holds of this context, or the prefixes hold."""
        text = self.text
        session.use(self.adapter)
        session.keep_shared(text)
        self._prefixes.restore(session.cache, text, self._owner)
        session.cache.comes_again = 0 if self._gone else self._keep.tokens
        kept = session.cache.length
        self._session = session
        self._note_held(kept)
        # The token that is due is the writer's to run.
        self._unread = text[kept:-1] if self.begun else text[kept:]

    def read(self, most: int | None = None) -> list[Said]:
        """Read one chunk, of so many tokens at most; the last one of the prompt brings the first tokens."""
        started = perf_counter()
        self._take_over()
        tokens = self._read(most) if self.unread else []
        self._took(perf_counter() - started)
        if tokens:
            self.begun = True
        return self._say(tokens) if tokens else []

    def plan(self, others: int) -> int:
        """Guess what follows; return how many tokens the next step runs. One may be run with `others`' (`draw`)."""
        cache, started = self._in_session.cache, perf_counter()
        tokens = self._writer.guess(cache, self._params.max_tokens - len(self._said), others)
        self._took(perf_counter() - started)
        return tokens

    @property
    def steps_alone(self) -> bool:
        """Whether no other answer may take its next step together with this one."""
        return self._params.one_row_a_step or len(self._writer.due) > 1

    @property
    def due(self) -> int:
        """The token that is run next."""
        return self._writer.due[0]

    def step(self) -> list[Said]:
        """Run what is due and guessed; of much that is due the first tokens at once, so that the rest has room."""
        started, session = perf_counter(), self._in_session
        most = max(1, session.cache.capacity // 2)
        while len(self._writer.due) > most:
            self._make_room(most)
            session.run(self._writer.due[:most])
            self._writer.due = self._writer.due[most:]
        self._make_room(len(self._writer.due))
        tokens = self._writer.step(session)
        self._took(perf_counter() - started)
        return self._say(tokens)

    def draw(self, logits: NDArray[np.float32], seconds: float) -> list[Said]:
        """Go on from the logits [1, vocab] after the token that was due, and was run with others in so many seconds."""
        started = perf_counter()
        tokens = self._writer.draw(self._in_session.cache, logits)
        self._took(seconds + perf_counter() - started)
        return self._say(tokens)

    def leave(self) -> None:
        """Stop, for another takes the session; `place` lets it go on."""
        cache = self._in_session.cache
        self._prefixes.keep(cache, Keep(cache.length), self._owner, comes_again=False)
        self._session = None

    def close(self) -> None:
        """Let go of the session, and remember what was said: it may be said again."""
        self._session = None
        if self.begun:  # one that had no turn must not displace what others said
            self._speculator.remember(self._said)

    @property
    def _owner(self) -> str:
        return self.adapter.identity if self.adapter else ""

    @property
    def _in_session(self) -> Session:
        assert self._session is not None, "a step is taken only where it was placed"  # noqa: S101
        return self._session

    def _take_over(self) -> None:
        """Have what another slot has read of this text by now: it need not be read again."""
        taken = self._prefixes.take_over(self._in_session, self.text[:-1])
        self._unread = self._unread[taken:]
        self._note_held(taken)

    def _note_held(self, cached: int = 0) -> None:
        """Note how far a slot holds the prompt; of what was `cached` count what none held before an interruption."""
        length = self._in_session.cache.length
        new = min(cached, length - self._most_held)
        if new > 0 and not self.begun:
            self._count(cached_tokens=self.progress.usage.cached_tokens + new)
        self._most_held = max(self._most_held, length)

    def _read(self, most: int | None) -> list[int]:
        """Read one chunk; return the tokens that the last one of the prompt brings."""
        session = self._in_session
        chunk = next(session.chunks(self._unread, most))
        logits = session.run(chunk)
        self._unread = self._unread[len(chunk) :]
        self._note_held()
        if self.unread or self.begun:
            return []
        self._prefixes.keep(session.cache, self._keep, self._owner)
        return self._writer.begin(logits)

    def _make_room(self, tokens: int) -> None:
        if gone := self._in_session.cache.make_room(tokens):
            self._gone.append(gone)

    def _took(self, seconds: float) -> None:
        timing = self.progress.timing
        if self.begun:
            timing = replace(timing, decode_s=timing.decode_s + seconds)
        else:
            timing = replace(timing, prefill_s=timing.prefill_s + seconds)
        self.progress = replace(self.progress, timing=timing)

    def _say(self, tokens: list[int]) -> list[Said]:
        """Return what is to be said of some tokens, at least one, that were drawn; the end with it, where it is one."""
        self._count(accepted_prediction_tokens=self._writer.accepted, rejected_prediction_tokens=self._writer.rejected)
        room = self._params.max_tokens - len(self._said)
        stop = len(tokens) - 1 if self._writer.stopped else None
        out: list[Said] = []
        for at, token in enumerate(tokens[:room]):
            if at == stop:
                return [*out, self._end("stop")]
            self._said.append(token)
            self._count(completion_tokens=len(self._said))
            if len(self._said) == self._params.max_tokens:
                whole = self._writer.ended and len(tokens) == room
                self.progress = replace(self.progress, finish_reason="stop" if whole else "length")
            out.append(Said(token, self.progress))
        if len(tokens) >= room:
            return [*out, self._end(self.progress.finish_reason)]
        if self._writer.ended:
            return [*out, self._end("stop")]
        # At once, not before the next step: a slot that waits full loses a token where its neighbours step together.
        self._make_room(min(len(self._writer.due), self._in_session.cache.capacity // 2))
        return out

    def _count(self, **tokens: int) -> None:
        self.progress = replace(self.progress, usage=replace(self.progress.usage, **tokens))

    def _end(self, reason: FinishReason) -> Said:
        self.ended = True
        self.progress = replace(self.progress, finish_reason=reason)
        return Said(None, self.progress)
