"""The engine: a prompt of token ids becomes an answer of token ids, one at a time.

    with Engine.load(bundle, settings) as engine:
        answer = engine.generate(prompt, SamplingParams(max_tokens=64, stop_ids=frozenset({2})))
        for token in answer:
            ...
        print(answer.finish_reason, answer.usage, answer.timing)

One sequence lives in the cache. What a new prompt has in common with it, from the start, is kept and not computed
again. An engine may be shared by threads: a generation waits for the one before it from its first token on, and holds
the engine until it is exhausted, closed or dropped. The thread that holds the engine gets EngineBusyError
if it asks for a second one.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import numpy as np

from edge_assistant.engine.kv_cache import KvCache, capacity_of
from edge_assistant.engine.sampling import Sampler
from edge_assistant.engine.session import Session
from edge_assistant.errors import ContextOverflowError, EngineBusyError, EngineClosedError, PromptError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from edge_assistant.bundle import Bundle
    from edge_assistant.config import EngineSettings
    from edge_assistant.engine.sampling import SamplingParams

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    """Those of the answer, without the token that ended it."""
    cached_tokens: int
    """Those of the prompt that were in the cache already."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds in which the engine was at work; what the caller does between two tokens is not in them."""

    prefill_s: float
    """From the prompt to the first token."""
    decode_s: float
    """All tokens after the first."""


class Engine:
    """A loaded model with its cache."""

    def __init__(self, session: Session) -> None:
        """Take what `load` has made."""
        self._open_session: Session | None = session
        self._turn = _Turn()

    @classmethod
    def load(cls, bundle: Bundle, settings: EngineSettings) -> Engine:
        """Load a bundle.

        Raises:
            CacheBudgetError: settings.kv_cache_bytes holds no token; nothing was allocated.
            BundleGraphError: The graph is not the one the manifest describes.
        """
        cache = KvCache(bundle.manifest, capacity_of(bundle.manifest, settings.kv_cache_bytes))
        return cls(Session(bundle, cache, settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back, once a generation that is under way has ended."""
        with self._turn:
            self._open_session = None

    @property
    def capacity(self) -> int:
        """How many tokens a prompt and its answer may have together."""
        return self._session.cache.capacity

    def generate(
        self, prompt: Sequence[int], params: SamplingParams, cancel: threading.Event | None = None
    ) -> Generation:
        """Return the answer to a prompt [n], to be iterated. Setting `cancel` ends it before the next token.

        Raises:
            PromptError: The prompt is empty or holds an id that is none.
            ContextOverflowError: Prompt and params.max_tokens exceed the capacity.
        """
        ids = self._checked(prompt, params.max_tokens)
        return Generation(self._session, self._turn, ids, params, cancel or threading.Event())

    def score(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the logits [n, vocab] after every token of a text [n].

        Raises:
            PromptError, ContextOverflowError: As for `generate`.
        """
        text = self._checked(ids, 0)
        session = self._session
        logits = np.empty((len(text), session.vocab_size), np.float32)
        with self._turn:
            session.cache.rewind(0)
            for start in range(0, len(text), session.prefill_chunk):
                chunk = text[start : start + session.prefill_chunk]
                logits[start : start + len(chunk)] = session.run_all(chunk)
        return logits

    @property
    def _session(self) -> Session:
        if self._open_session is None:
            raise EngineClosedError
        return self._open_session

    def _checked(self, prompt: Sequence[int], answer: int) -> NDArray[np.int64]:
        ids = np.asarray(prompt, np.int64)
        vocab_size, capacity = self._session.vocab_size, self.capacity
        if not len(ids) or ids.min() < 0 or ids.max() >= vocab_size:
            raise PromptError(len(ids), vocab_size)
        if len(ids) + answer > capacity:
            raise ContextOverflowError(len(ids), answer, capacity)
        return ids


class Generation:
    """An answer under way: an iterator of token ids, and after its end why it ended and what it took."""

    def __init__(
        self,
        session: Session,
        turn: _Turn,
        prompt: NDArray[np.int64],
        params: SamplingParams,
        cancel: threading.Event,
    ) -> None:
        """Nothing runs before the first token is asked for."""
        self._session = session
        self._prompt = prompt
        self._params = params
        self._sampler = Sampler(params, session.vocab_size)
        self._cancel = cancel
        self._completion = self._cached = 0
        self._prefill_s = self._decode_s = 0.0
        self._tokens = self._generate(turn)
        self.finish_reason: FinishReason = "cancelled"
        """Why it ended; one that is closed before its end was cancelled."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        return next(self._tokens)

    def close(self) -> None:
        """End it here; the cache keeps what was read and written so far."""
        self._tokens.close()

    @property
    def usage(self) -> Usage:
        """What it has taken so far."""
        return Usage(len(self._prompt), self._completion, self._cached)

    @property
    def timing(self) -> Timing:
        """How long it has worked so far."""
        return Timing(self._prefill_s, self._decode_s)

    def _generate(self, turn: _Turn) -> Generator[int, None, None]:
        params, run, sample = self._params, self._session.run, self._sampler.sample
        position = len(self._prompt)
        with turn:
            started = perf_counter()
            logits = self._prefill()
            if logits is None:
                return
            token = sample(logits, position)
            self._prefill_s = perf_counter() - started
            while token not in params.stop_ids:
                self._completion += 1
                complete = self._completion == params.max_tokens
                if complete:
                    self.finish_reason = "length"
                yield token
                if complete or self._cancel.is_set():
                    return
                started = perf_counter()
                position += 1
                token = sample(run((token,)), position)
                self._decode_s += perf_counter() - started
            self.finish_reason = "stop"

    def _prefill(self) -> NDArray[np.float32] | None:
        """Read what the cache lacks of the prompt; None when it was cancelled on the way."""
        session, prompt = self._session, self._prompt
        self._sampler.see(prompt)
        self._cached = session.cache.keep_prefix(prompt)
        logits = None
        for start in range(self._cached, len(prompt), session.prefill_chunk):
            if self._cancel.is_set():
                return None
            logits = session.run(prompt[start : start + session.prefill_chunk])
        return logits


class _Turn:
    """A lock that refuses the thread that holds it instead of waiting for ever."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None

    def __enter__(self) -> None:
        if self._holder == threading.get_ident():
            raise EngineBusyError
        self._lock.acquire()
        self._holder = threading.get_ident()

    def __exit__(self, *exception: object) -> None:
        self._holder = None
        self._lock.release()
