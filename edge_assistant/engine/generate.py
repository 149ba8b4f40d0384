"""The engine: a prompt of token ids becomes an answer of token ids, one at a time.

    with Engine.load(bundle, settings) as engine:
        answer = engine.generate(prompt, SamplingParams(max_tokens=64, stop_ids=frozenset({2})))
        for token in answer:
            ...
        print(answer.finish_reason, answer.usage, answer.timing)

Threads share an engine: each answer that is asked for is computed by the engine's own thread, in its turn
(`scheduler.py`), and waits to be fetched. Several are under way at once where the cache has slots for them; what a new
prompt has in common with what a slot holds, from the start, is kept and not computed again, nor is what earlier prompts
left in the prefixes that are kept beside the cache (`prefixes.py`).

A prompt may also lack the oldest turns of one before: what stands behind them in a slot or in the prefixes, of what was
said to come again, is moved up (`evict.py`) where it is `engine.cache_reuse` tokens or more. It still carries some of
what went; with `engine.cache_reuse` 0 no answer depends on what the cache held. With `engine.refresh_when_idle` what
was moved is read anew while nobody asks for anything (`refresh.py`). An answer longer than the cache is refused, or
with `overflow="slide"` goes on while the oldest tokens go.

An answer may be written with a LoRA adapter (`adapter.py`). What a slot holds, and what is kept beside the cache, is of
one adapter, or of none, and is not taken for another's.
"""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from edge_assistant.engine.adapter import Adapter
from edge_assistant.engine.answer import Answer
from edge_assistant.engine.draft import Draft, check_vocabulary, draft_budget, weighed
from edge_assistant.engine.memory import HOST
from edge_assistant.engine.prefix_files import PrefixFiles
from edge_assistant.engine.prefixes import Keep, Prefixes
from edge_assistant.engine.refresh import Refresher
from edge_assistant.engine.request import Claim, Request
from edge_assistant.engine.runtime import VERSION
from edge_assistant.engine.scheduler import Scheduler
from edge_assistant.engine.score import Score
from edge_assistant.engine.slots import Slots
from edge_assistant.engine.speculate import Pace, Speculator
from edge_assistant.engine.steps import PATIENT_STEP
from edge_assistant.errors import ContextOverflowError, EngineClosedError, EvictionError, PromptError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    from numpy.typing import NDArray

    from edge_assistant.bundle import Bundle
    from edge_assistant.config import EngineSettings
    from edge_assistant.engine.metrics import Metrics
    from edge_assistant.engine.request import FinishReason, Said, Timing, Usage
    from edge_assistant.engine.sampling import SamplingParams


class Engine:
    """A loaded model with its cache."""

    def __init__(self, slots: Slots, prefixes: Prefixes, settings: EngineSettings, speculator: Speculator) -> None:
        """Take what `load` has made."""
        self._prefixes = prefixes
        self.capacity = slots.capacity
        """How many tokens a prompt and its answer may have together."""
        self._can_evict = slots.all[0].cache.can_evict
        self._manifest = slots.all[0].session.manifest
        self._vocab_size = self._manifest.architecture.vocab_size
        self._speculator = speculator
        step = min(PATIENT_STEP, settings.prefill_chunk)
        refresher = Refresher(slots.all if settings.refresh_when_idle else (), prefixes, step)
        self._open_scheduler: Scheduler | None = Scheduler(slots, speculator.pace, refresher, settings.queue)

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        settings: EngineSettings,
        prefixes: Path | None = None,
        *,
        prepacked: Path | None = None,
        row_cost: float | None = None,
        draft: Bundle | None = None,
    ) -> Engine:
        """Load a bundle; lasting prefixes are kept in the folder `prefixes`, where one is given.

        Weights come from the folder of `prepacked` ones (`prepacked.py`), where one is given and can be loaded.
        `row_cost`, what a row more takes in steps of one (`tuning.py`), says from the start how many guesses pay.
        A `draft` model guesses where nothing that was said comes again; its cache is a part of the budget (`draft.py`).

        Raises:
            DraftError: The draft has another vocabulary.
            CacheBudgetError: settings.kv_cache_bytes holds no token of each sequence; nothing was allocated.
            BundleGraphError: The graph is not the one the manifest describes.
            DeviceMemoryError: It computes on a GPU, whose memory does not hold the cache.
        """
        pace = Pace() if row_cost is None else Pace(row_cost)
        if draft is None or settings.guesses == 0:
            slots, drafts = Slots.load(bundle, settings, settings.kv_cache_bytes, prepacked), None
        else:
            check_vocabulary(bundle.manifest, draft.manifest)
            pace.draft_cost = weighed(bundle.manifest, draft.manifest)
            beside = draft_budget(bundle.manifest, draft.manifest, settings)
            slots = Slots.load(bundle, settings, settings.kv_cache_bytes - beside, prepacked)
            drafts = Draft.load(draft, settings, beside, [slot.cache for slot in slots.all])
            slots.cache_bytes += drafts.cache_bytes
        files = None
        if prefixes and settings.prefix_disk_bytes:
            device = slots.all[0].session.device
            where = "" if device == HOST else f"-{device.type}"
            computed_by = f"{bundle.manifest.identity}-onnxruntime-{VERSION}{where}"
            files = PrefixFiles(prefixes, computed_by, settings.prefix_disk_bytes)
        sessions = [slot.session for slot in slots.all]
        kept = Prefixes(settings.prefix_bytes, sessions, files, settings.cache_reuse)
        kept.begin()
        return cls(slots, kept, settings, Speculator(settings.guesses, pace, drafts))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back; answers under way end with EngineClosedError before their next token."""
        if self._open_scheduler is not None:
            self._open_scheduler.close()
            self._open_scheduler = None
        self._speculator.close()
        self._prefixes.close()

    def load_adapter(self, path: Path) -> Adapter:
        """Read a LoRA adapter, which stays in memory as long as it is referred to, or a slot's rows are of it.

        Raises:
            LoraFileError, LoraBaseError, LoraGraphError: It cannot be used with this model.
        """
        return Adapter.load(path, self._manifest)

    def generate(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        cancel: threading.Event | None = None,
        keep: Keep | None = None,
        claim: Claim | None = None,
        *,
        adapter: Adapter | None = None,
    ) -> Generation:
        """Return the answer to a prompt [n], to be iterated. Setting `cancel` ends it before the next token.

        `keep` says what of the prompt will come again at the beginning of others, some of its oldest turns apart,
        `claim` for whom it is, how urgent.
        In place of a token may come DeadlineError, EngineClosedError, or EngineBusyError where a more urgent request
        took its place.

        Raises:
            PromptError: The prompt is empty, no row of ids, or holds an id that is none.
            ContextOverflowError: Prompt and params.max_tokens exceed the capacity, or with overflow="slide" the prompt.
            EvictionError: Prompt and params.max_tokens do with overflow="slide", and a bounded window is in the way.
            EngineBusyError: Too many requests wait; it says when to ask again.
            LoraBaseError, LoraGraphError: The adapter was loaded for another model.
        """
        ids = self._checked(prompt, params.max_tokens if params.overflow == "error" else 0, adapter)
        if not self._can_evict and (excess := len(ids) + params.max_tokens - self.capacity) > 0:
            raise EvictionError(excess)
        work = Answer(ids, params, keep or Keep(), self._prefixes, self._speculator, self._vocab_size, adapter)
        return self._submitted(Request(work, claim or Claim(), cancel or threading.Event()))

    def score(self, ids: Sequence[int], *, adapter: Adapter | None = None) -> NDArray[np.float32]:
        """Return the logits [n, vocab] after every token of a text [n]; anybody else goes first.

        Raises:
            PromptError, ContextOverflowError, EngineBusyError, LoraError: As for `generate`.
        """
        work = Score(self._checked(ids, 0, adapter), self._vocab_size, adapter)
        with closing(self._submitted(Request(work, Claim(priority="batch"), threading.Event()))) as reading:
            for _ in reading:
                pass
        return work.logits

    def metrics(self) -> Metrics:
        """Return what was counted since the engine was loaded."""
        return self._scheduler.metrics()

    @property
    def _scheduler(self) -> Scheduler:
        if self._open_scheduler is None:
            raise EngineClosedError
        return self._open_scheduler

    def _submitted(self, request: Request) -> Generation:
        generation = Generation(request)
        self._scheduler.submit(request)
        return generation

    def _checked(self, prompt: Sequence[int], answer: int, adapter: Adapter | None) -> NDArray[np.int64]:
        if adapter is not None:
            adapter.check(self._manifest)
        ids = _row(prompt, self._vocab_size)
        if len(ids) + answer > self.capacity:
            raise ContextOverflowError(len(ids), answer, self.capacity)
        return ids


class Generation:
    """An answer under way: an iterator of token ids, and after its end why it ended and what it took.

    What it says of itself is of the tokens that were fetched, however far the engine is ahead.
    """

    def __init__(self, request: Request) -> None:
        """The request is not submitted yet."""
        self._request = request
        self._progress = request.work.progress
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        if self._ended or self._request.given_up:
            raise StopIteration
        said = self._request.out.get()
        if isinstance(said, Exception):
            self._end(said)
            raise said
        self._progress = said.progress
        if said.token is None:
            self._end(said)
            raise StopIteration
        return said.token

    def _end(self, last: Said | Exception) -> None:
        self._ended = True
        self._request.out.put(last)  # for whichever other thread waits here

    def __del__(self) -> None:
        if hasattr(self, "_request"):  # Ctrl-C may come before there is one
            self.close()

    def close(self) -> None:
        """End it here; the cache keeps what was read and written so far."""
        self._request.dropped = True

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ended; one that is closed before its end was cancelled."""
        return self._progress.finish_reason

    @property
    def usage(self) -> Usage:
        """What it has taken so far."""
        return self._progress.usage

    @property
    def timing(self) -> Timing:
        """How long it has been computed so far."""
        return self._progress.timing


def _row(prompt: Sequence[int], vocab_size: int) -> NDArray[np.int64]:
    """Return a copy of a prompt [n], which is the caller's and may change; PromptError where it is none."""
    try:
        ids = np.array(prompt)
    except ValueError as error:  # rows of several lengths
        raise PromptError(None, vocab_size) from error
    if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
        raise PromptError(None, vocab_size)
    if not len(ids) or ids.min() < 0 or ids.max() >= vocab_size:
        raise PromptError(len(ids), vocab_size)
    return ids.astype(np.int64)
