"""The engine: a prompt of token ids becomes an answer of token ids, one at a time.

    with Engine.load(bundle, settings) as engine:
        answer = engine.generate(prompt, SamplingParams(max_tokens=64, stop_ids=frozenset({2})))
        for token in answer:
            ...
        print(answer.finish_reason, answer.usage, answer.timing)

One sequence lives in the cache. What a new prompt has in common with it, from the start, is kept and not computed
again, nor is what earlier prompts left in the prefixes that are kept beside it (`prefixes.py`). An engine may be
shared by threads: a generation, each iterated by one thread, waits at its first token for the one before it, then holds
the engine until it is exhausted, closed or dropped. A thread that would wait for a generation of its own gets
EngineBusyError.

A generation may be run with a LoRA adapter (`adapter.py`). What the cache holds, and what is kept beside it, is of one
adapter, or of none, and is not taken for another's.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import numpy as np

from edge_assistant.engine.adapter import Adapter
from edge_assistant.engine.kv_cache import KvCache, capacity_of
from edge_assistant.engine.prefix_files import PrefixFiles
from edge_assistant.engine.prefixes import Keep, Prefixes
from edge_assistant.engine.session import RUNTIME, Session
from edge_assistant.engine.speculate import Speculator
from edge_assistant.engine.write import Writer
from edge_assistant.errors import ContextOverflowError, EngineBusyError, EngineClosedError, PromptError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path
    from typing import Self

    from numpy.typing import NDArray

    from edge_assistant.bundle import Bundle, Manifest
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
    """Those of the prompt that were in the cache already, or in a prefix that was kept."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds in which the engine was at work; what the caller does between two tokens is not in them."""

    prefill_s: float
    """From the prompt to the first token."""
    decode_s: float
    """All tokens after the first."""


class Engine:
    """A loaded model with its cache."""

    def __init__(self, session: Session, prefixes: Prefixes, guesses: int) -> None:
        """Take what `load` has made; at most `guesses` tokens are guessed ahead."""
        self._open_session: Session | None = session
        self._prefixes = prefixes
        self._speculator = Speculator(guesses)
        self._turn = _Turn()

    @classmethod
    def load(cls, bundle: Bundle, settings: EngineSettings, prefixes: Path | None = None) -> Engine:
        """Load a bundle; lasting prefixes are kept in the folder `prefixes`, where one is given.

        Raises:
            CacheBudgetError: settings.kv_cache_bytes holds no token; nothing was allocated.
            BundleGraphError: The graph is not the one the manifest describes.
        """
        cache = KvCache(bundle.manifest, capacity_of(bundle.manifest, settings.kv_cache_bytes))
        session = Session(bundle, cache, settings)
        files = None
        if prefixes and settings.prefix_disk_bytes:
            files = PrefixFiles(prefixes, _fingerprint(bundle.manifest), settings.prefix_disk_bytes)
        return cls(session, Prefixes(settings.prefix_bytes, files), settings.guesses)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back, once a generation that is under way has ended."""
        with self._turn:
            self._open_session = None
        self._prefixes.close()

    @property
    def capacity(self) -> int:
        """How many tokens a prompt and its answer may have together."""
        return self._session.cache.capacity

    def load_adapter(self, path: Path) -> Adapter:
        """Read a LoRA adapter, which stays in memory as long as it is referred to.

        Raises:
            LoraFileError, LoraBaseError, LoraGraphError: It cannot be used with this model.
        """
        return Adapter.load(path, self._session.manifest)

    def generate(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        cancel: threading.Event | None = None,
        keep: Keep | None = None,
        *,
        adapter: Adapter | None = None,
    ) -> Generation:
        """Return the answer to a prompt [n], to be iterated. Setting `cancel` ends it before the next token.

        `keep` says what of the prompt will come again at the beginning of others.

        Raises:
            PromptError: The prompt is empty or holds an id that is none.
            ContextOverflowError: Prompt and params.max_tokens exceed the capacity.
            LoraBaseError, LoraGraphError: The adapter was loaded for another model.
        """
        ids = self._checked(prompt, params.max_tokens, adapter)
        request = _Request(ids, params, cancel or threading.Event(), keep or Keep(), adapter)
        return Generation(self._session, self._prefixes, self._speculator, self._turn, request)

    def score(self, ids: Sequence[int], *, adapter: Adapter | None = None) -> NDArray[np.float32]:
        """Return the logits [n, vocab] after every token of a text [n].

        Raises:
            PromptError, ContextOverflowError, LoraError: As for `generate`.
        """
        text = self._checked(ids, 0, adapter)
        session = self._session
        logits = np.empty((len(text), session.vocab_size), np.float32)
        with self._turn:
            session.use(adapter)
            session.cache.rewind(0)
            for chunk in session.chunks(text):
                start = session.cache.length
                logits[start : start + len(chunk)] = session.run_rows(chunk, len(chunk))
        return logits

    @property
    def _session(self) -> Session:
        if self._open_session is None:
            raise EngineClosedError
        return self._open_session

    def _checked(self, prompt: Sequence[int], answer: int, adapter: Adapter | None) -> NDArray[np.int64]:
        if adapter is not None:
            adapter.check(self._session.manifest)
        ids = np.asarray(prompt, np.int64)
        vocab_size, capacity = self._session.vocab_size, self.capacity
        if not len(ids) or ids.min() < 0 or ids.max() >= vocab_size:
            raise PromptError(len(ids), vocab_size)
        if len(ids) + answer > capacity:
            raise ContextOverflowError(len(ids), answer, capacity)
        return ids


@dataclass(frozen=True, slots=True)
class _Request:
    """What was asked of the engine."""

    prompt: NDArray[np.int64]
    params: SamplingParams
    cancel: threading.Event
    keep: Keep
    adapter: Adapter | None


class Generation:
    """An answer under way: an iterator of token ids, and after its end why it ended and what it took."""

    def __init__(
        self, session: Session, prefixes: Prefixes, speculator: Speculator, turn: _Turn, request: _Request
    ) -> None:
        """Nothing runs before the first token is asked for."""
        self._progress = _Progress(len(request.prompt))
        self._tokens = _generate(session, prefixes, speculator, turn, request, self._progress)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        return next(self._tokens)

    def close(self) -> None:
        """End it here; the cache keeps what was read and written so far."""
        self._tokens.close()

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ended; one that is closed before its end was cancelled."""
        return self._progress.finish_reason

    @property
    def usage(self) -> Usage:
        """What it has taken so far."""
        progress = self._progress
        return Usage(progress.prompt_tokens, progress.completion_tokens, progress.cached_tokens)

    @property
    def timing(self) -> Timing:
        """How long it has worked so far."""
        return Timing(self._progress.prefill_s, self._progress.decode_s)


@dataclass(slots=True)
class _Progress:
    """What a generation tells of itself; apart from it, so that no cycle keeps one alive that was dropped."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    finish_reason: FinishReason = "cancelled"


def _generate(
    session: Session,
    prefixes: Prefixes,
    speculator: Speculator,
    turn: _Turn,
    request: _Request,
    progress: _Progress,
) -> Generator[int, None, None]:
    prompt, params, cancel = request.prompt, request.params, request.cancel
    writer = Writer(session, speculator, prompt, params)
    said: list[int] = []
    with turn:
        started = perf_counter()
        session.use(request.adapter)
        owner = request.adapter.identity if request.adapter else ""
        session.cache.keep_prefix(prompt)
        prefixes.restore(session.cache, prompt, owner)
        progress.cached_tokens = session.cache.length
        logits = _prefill(session, prompt[progress.cached_tokens :], cancel)
        if logits is None:
            return
        prefixes.keep(session.cache, request.keep, owner)
        tokens = writer.begin(logits)
        progress.prefill_s = perf_counter() - started
        try:
            while True:
                room = params.max_tokens - len(said)
                for token in tokens[:room]:
                    if token in params.stop_ids:
                        progress.finish_reason = "stop"
                        return
                    said.append(token)
                    progress.completion_tokens = len(said)
                    if len(said) == params.max_tokens:
                        progress.finish_reason = "stop" if writer.ended and len(tokens) == room else "length"
                    yield token
                    if cancel.is_set():
                        return
                if len(tokens) >= room:
                    return
                if writer.ended:
                    progress.finish_reason = "stop"
                    return
                started = perf_counter()
                tokens = writer.step(room - len(tokens))
                progress.decode_s += perf_counter() - started
        finally:
            speculator.remember(said)


def _prefill(session: Session, ids: NDArray[np.int64], cancel: threading.Event) -> NDArray[np.float32] | None:
    """Read ids in chunks and return the logits after the last; None when it was cancelled on the way."""
    logits = None
    for chunk in session.chunks(ids):
        if cancel.is_set():
            return None
        logits = session.run(chunk)
    return logits


def _fingerprint(manifest: Manifest) -> str:
    """Return what the rows of a prefix depend on: the bundle's files, its cache, and what computes with them."""
    return hashlib.sha256(f"{RUNTIME} {manifest.to_json()}".encode()).hexdigest()


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
