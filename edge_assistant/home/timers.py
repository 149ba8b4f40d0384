"""Timers that the assistant was asked to set: each ends once, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_assistant.errors import CallError
from edge_assistant.home.values import same
from edge_assistant.home.wording import join

MAX_TIMERS = 32
MAX_SECONDS = 24 * 3600
_UNITS = (("hour", 3600), ("minute", 60), ("second", 1))


@dataclass(frozen=True, slots=True)
class Timer:
    """One timer: what it is for, and how long it runs in seconds."""

    name: str | None
    seconds: int

    @property
    def words(self) -> str:
        """The timer as it is spoken of: `5 minutes timer for the pasta`."""
        return f"{duration(self.seconds)} timer" + (f" for {self.name}" if self.name else "")


class Timers:
    """The timers that run; they live on the event loop and end with it."""

    def __init__(self, on_end: Callable[[Timer], Awaitable[None]]) -> None:
        """`on_end` is awaited when a timer has run out."""
        self._on_end = on_end
        self._running: dict[asyncio.Task[None], Timer] = {}

    def start(self, arguments: Mapping[str, Any]) -> Timer:
        """Start the timer that a HassStartTimer asks for; CallError where its time cannot be."""
        seconds = sum(arguments.get(f"{unit}s", 0) * length for unit, length in _UNITS)
        if not 1 <= seconds <= MAX_SECONDS:
            raise CallError("A timer has to run from a second to 24 hours.")
        if len(self._running) >= MAX_TIMERS:
            raise CallError(f"{MAX_TIMERS} timers are running already.")
        timer = Timer(arguments.get("name") or None, seconds)
        task = asyncio.create_task(self._run(timer), name=f"timer {timer.words}")
        self._running[task] = timer
        task.add_done_callback(lambda ended: self._running.pop(ended, None))
        return timer

    def cancel(self, arguments: Mapping[str, Any]) -> Timer:
        """Cancel the timer of that name, or the only one; CallError where it is not clear which."""
        wanted = same(arguments.get("name") or "")
        found = [
            (task, timer) for task, timer in self._running.items() if not wanted or same(timer.name or "") == wanted
        ]
        if not found:
            raise CallError("No such timer is running." if wanted else "No timer is running.")
        if len(found) > 1:
            which = join([f"the {timer.words}" for _, timer in found])
            raise CallError(f"There are {which}: which one?")
        task, timer = found[0]
        self._running.pop(task)
        task.cancel()
        return timer

    async def close(self) -> None:
        """Cancel all timers and wait until they are gone."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, timer: Timer) -> None:
        await asyncio.sleep(timer.seconds)
        await self._on_end(timer)


def duration(seconds: int) -> str:
    """Return `1 hour and 30 minutes`."""
    parts = []
    for unit, length in _UNITS:
        count, seconds = divmod(seconds, length)
        if count:
            parts.append(f"{count} {unit}{'s' if count > 1 else ''}")
    return join(parts)
