"""A timer ends once and says so; its length in words."""

from __future__ import annotations

import asyncio

import pytest

from edge_assistant.errors import CallError
from edge_assistant.home.timers import MAX_TIMERS, Timer, Timers, duration


async def test_a_timer_that_ends_says_so_once():
    ended = asyncio.Queue()
    timers = Timers(ended.put)
    timers.start({"seconds": 1, "name": "eggs"})
    async with asyncio.timeout(10):
        assert await ended.get() == Timer("eggs", 1)
        await asyncio.sleep(0)
    with pytest.raises(CallError, match="No timer is running"):
        timers.cancel({})


async def test_timers_are_bounded_and_end_with_their_owner():
    rung = []

    async def ring(timer):
        rung.append(timer)

    timers = Timers(ring)
    for _ in range(MAX_TIMERS):
        timers.start({"seconds": 1})
    with pytest.raises(CallError, match="running already"):
        timers.start({"seconds": 1})
    await timers.close()
    assert not rung


@pytest.mark.parametrize(
    ("seconds", "words"), [(1, "1 second"), (90, "1 minute and 30 seconds"), (7384, "2 hours, 3 minutes and 4 seconds")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words
