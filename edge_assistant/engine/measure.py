"""Finds the fastest settings for a bundle on this device, in bounded time.

What needs no other load comes first, then one load for each question. A measurement begins only where it should end
before the time is up, judging by the last of its kind; what is left out is named, and keeps its default. A 7B on a
small board reads ten tokens a second and takes long to load; of a small model all is measured within seconds.

Speeds are those of the best step: whatever else runs on the device only ever makes one slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.session import Session
from edge_assistant.engine.tuning import Tuning

if TYPE_CHECKING:
    from edge_assistant.bundle import Bundle
    from edge_assistant.config import EngineSettings

BUDGET_SECONDS: Final = 90.0
"""A last measurement may begin shortly before, so that all of it takes less than two minutes."""
_CONTEXT: Final = 32
"""Tokens before the steps that are measured."""
_CHUNKS: Final = (32, 64, 128, 256, 512)
_ROWS: Final = (2, 4, 8)
_GAIN: Final = 0.03
"""What a choice that costs threads, memory or idle time has to gain: less is noise."""
_SLOW_SECONDS: Final = 1.0


@dataclass(slots=True)
class Clock:
    """Asks questions while there is time, and says how it goes."""

    progress: Callable[[str], None]
    end: float = field(default_factory=lambda: perf_counter() + BUDGET_SECONDS)
    skipped: list[str] = field(default_factory=list)
    _took: dict[str, float] = field(default_factory=dict)

    def ask(self, kind: str, question: str, measure: Callable[[], float], times: float = 1.0) -> float | None:
        """Return what is measured; None where it would not end in time if it took `times` the last of its kind."""
        started = perf_counter()
        if started + times * self._took.get(kind, 0.0) > self.end:
            self.skipped.append(question)
            self.progress(f"{question}: left out, there is no time")
            return None
        self.progress(question)
        found = measure()
        self._took[kind] = perf_counter() - started
        return found


class Tuner:
    """One bundle, and the settings as far as they have been found."""

    def __init__(self, bundle: Bundle, settings: EngineSettings, clock: Clock) -> None:
        """Begin with the settings; those that are measured are replaced one after the other."""
        self._bundle = bundle
        self._settings = settings
        self._clock = clock

    def run(self, threads: Sequence[int], prepacked: Path | None, anonymous: Callable[[Path | None], int]) -> Tuning:
        """Measure with these numbers of threads, the likeliest first, and prepacked weights where there are some.

        `anonymous` tells how many bytes that the system cannot take back a load holds, with them or without.
        """
        self._set(threads=threads[0], spinning=False, prefill_chunk=max(_CHUNKS))
        session = self._session(None, _CONTEXT + max(_CHUNKS))
        one = step_seconds(session, 1)
        batch_cost = self._batch_cost(session, one)
        chunk, prefill = self._best_chunk(session)
        del session  # its memory goes before the next is loaded
        best, one = self._best_threads(threads, one)
        spinning, one = self._spinning_pays(one)
        pays = self._prepacked_pays(prepacked, one, anonymous) if prepacked else None
        skipped = tuple(self._clock.skipped)
        return Tuning(best, spinning, chunk, pays, batch_cost, round(1 / one, 3), round(prefill, 3), skipped)

    def _batch_cost(self, session: Session, one: float) -> dict[str, float]:
        took = {
            rows: self._clock.ask("rows", f"a step of {rows} rows", partial(step_seconds, session, rows), 2)
            for rows in _ROWS
        }
        return {str(rows): round(seconds / one, 3) for rows, seconds in took.items() if seconds is not None}

    def _best_chunk(self, session: Session) -> tuple[int, float]:
        """Return the smallest chunk than which no larger one is faster, and its tokens a second."""
        least = _CHUNKS[0]
        fastest = {least: least / chunk_seconds(session, least)}
        for chunk in _CHUNKS[1:]:
            if chunk > session.cache.capacity:
                break
            read = partial(chunk_seconds, session, chunk)
            took = self._clock.ask("chunk", f"a prompt in steps of {chunk} tokens", read, 2)
            if took is None:
                break
            fastest[chunk] = chunk / took
        return smallest_of_the_fastest(fastest)

    def _best_threads(self, threads: Sequence[int], one: float) -> tuple[int, float]:
        """Return the fewest threads that are as fast as any, and the seconds of a step."""
        speeds = {threads[0]: 1 / one}
        for number in threads[1:]:
            took = self._clock.ask("load", f"threads = {number}", partial(self._step, threads=number))
            if took is not None:
                speeds[number] = 1 / took
        best, speed = smallest_of_the_fastest(speeds)
        self._set(threads=best)
        return best, 1 / speed

    def _spinning_pays(self, one: float) -> tuple[bool, float]:
        """Return whether it does, and the seconds of a step."""
        took = self._clock.ask("load", "spinning", partial(self._step, spinning=True))
        if took is None or took >= one * (1 - _GAIN):
            return False, one
        self._set(spinning=True)
        return True, took

    def _prepacked_pays(self, prepacked: Path, one: float, anonymous: Callable[[Path | None], int]) -> bool | None:
        """Return whether they save memory and cost no speed, None where there is no time for three loads."""

        def measured() -> float:
            saves = anonymous(prepacked) < anonymous(None)
            return self._step(prepacked) if saves else float("inf")

        took = self._clock.ask("load", "prepacked weights", measured, 3)
        return None if took is None else took <= one * (1 + _GAIN)

    def _set(self, **changed: int | bool) -> None:
        self._settings = self._settings.model_copy(update=changed)

    def _step(self, prepacked: Path | None = None, **changed: int | bool) -> float:
        """Return the seconds of a decoded token after another load."""
        return step_seconds(self._session(prepacked, _CONTEXT + 1, **changed), 1)

    def _session(self, prepacked: Path | None, capacity: int, **changed: int | bool) -> Session:
        manifest = self._bundle.manifest
        cache = KvCache(manifest, min(capacity, manifest.architecture.max_positions))
        session = Session(self._bundle, cache, self._settings.model_copy(update=changed), prepacked)
        session.run(_tokens(session, _CONTEXT))
        return session


def step_seconds(session: Session, rows: int) -> float:
    """Return the least seconds that a step of so many rows takes, all their logits included; the context stays."""
    ids = _tokens(session, rows)
    return _best(session, lambda: session.run(ids) if rows == 1 else session.run_rows(ids, rows))


def chunk_seconds(session: Session, chunk: int) -> float:
    """Return the least seconds that so many tokens of a prompt take in one step; nothing of the context stays."""
    session.cache.rewind(0)
    return _best(session, lambda: session.run(_tokens(session, chunk)))


def smallest_of_the_fastest(speeds: Mapping[int, float]) -> tuple[int, float]:
    """Return the smallest number whose speed is next to the greatest, and that speed."""
    fastest = max(speeds.values())
    return next((number, speed) for number, speed in sorted(speeds.items()) if speed >= fastest * (1 - _GAIN))


def _best(session: Session, step: Callable[[], object]) -> float:
    """Return the least seconds of a step: of many fast ones, of a few slow ones, of one that takes a second or more."""
    length, started, best = session.cache.length, perf_counter(), float("inf")
    for number in range(1000):
        before = perf_counter()
        step()
        now = perf_counter()
        session.cache.rewind(length)
        if number == 0 and now - before < _SLOW_SECONDS:
            continue  # it warms up
        best = min(best, now - before)
        if now - started > _SLOW_SECONDS or (now - started > _SLOW_SECONDS / 4 and number > 4):
            break
    return best


def _tokens(session: Session, number: int) -> list[int]:
    return [position % session.vocab_size for position in range(number)]
