"""Calls are carried out here: planned against the home, written through the actuator, watched, and put into words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_assistant.errors import CallError, UnknownDeviceError
from edge_assistant.home.actions import Actuator, Write, check_arguments, check_unlocking, plan
from edge_assistant.home.meant import Said, check_meant
from edge_assistant.home.outcomes import CallOutcome, Result, outcome
from edge_assistant.home.resolve import resolve, target_of
from edge_assistant.home.wording import states

if TYPE_CHECKING:
    from edge_assistant.home.registry import Home
    from edge_assistant.home.timers import Timers
    from edge_assistant.text.messages import ToolCall


class Performer:
    """Carries calls out on one home."""

    def __init__(self, home: Home, actuator: Actuator, timers: Timers | None) -> None:
        """`home` is read at each call, so that what arrived meanwhile counts; without `timers` none can be set."""
        self._home = home
        self._actuator = actuator
        self._timers = timers

    async def perform(self, calls: Sequence[ToolCall], said: Said) -> tuple[CallOutcome, ...]:
        """Carry the calls of one turn out, in which that was said.

        Commands leave in their order, their devices are waited for together.
        """
        return tuple(await asyncio.gather(*(self._perform(call, said) for call in calls)))

    async def _perform(self, call: ToolCall, said: Said) -> CallOutcome:
        try:
            return await self._carried_out(call, said)
        except (CallError, UnknownDeviceError) as error:
            return CallOutcome(call, "refused", str(error))

    async def _carried_out(self, call: ToolCall, said: Said) -> CallOutcome:
        match call.name:
            case "HassGetState":
                return self._state(call)
            case "HassStartTimer" | "HassCancelTimer":
                return self._timer(call)
            case _:
                writes = plan(call, self._home)
                check_unlocking(call, writes)
                check_meant(said, writes)
                results = await asyncio.gather(*(self._write(write) for write in writes))
                return outcome(call, results, self._home)

    def _state(self, call: ToolCall) -> CallOutcome:
        check_arguments(call)
        wanted = call.arguments.get("state") or None
        found = resolve(self._home, target_of(call.arguments))
        return CallOutcome(call, "done", states(found, self._home, wanted))

    def _timer(self, call: ToolCall) -> CallOutcome:
        check_arguments(call)
        if self._timers is None:
            raise CallError("I can keep timers only while I run as a service.")
        if call.name == "HassStartTimer":
            return CallOutcome(call, "done", f"Started a {self._timers.start(call.arguments).words}.")
        return CallOutcome(call, "done", f"Cancelled the {self._timers.cancel(call.arguments).words}.")

    async def _write(self, write: Write) -> Result:
        followed = await self._actuator.set(write.device, write.property_name, write.value)
        now = self._home.get(write.device.area, write.device.name) or write.device
        return Result(write, now, followed)
