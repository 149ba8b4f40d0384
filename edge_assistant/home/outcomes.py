"""What came of a call, in words: done, not followed, or unknown. Never "done" before the home says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edge_assistant.home.actions import Write
from edge_assistant.home.kinds import UNITS
from edge_assistant.home.registry import Device, as_words
from edge_assistant.home.values import same
from edge_assistant.home.wording import join, phrase, sentence
from edge_assistant.text.messages import ToolCall

Status = Literal["done", "not_followed", "unknown", "refused"]

_VERBS = {
    ("cover", "open"): "opened",
    ("cover", "closed"): "closed",
    ("lock", "locked"): "locked",
    ("lock", "unlocked"): "unlocked",
    ("vacuum", "cleaning"): "started",
    ("vacuum", "docked"): "sent back",
    ("scene", "on"): "activated",
    ("media_player", "paused"): "paused",
    ("media_player", "playing"): "resumed",
}
_ON_THE_WAY = frozenset({"opening", "closing", "locking", "unlocking", "returning"})


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What came of one call: how it ended, and a sentence for the person."""

    call: ToolCall
    status: Status
    text: str

    def as_json(self) -> dict[str, Any]:
        """Return the call as an answer lists it."""
        call = {"id": self.call.id, "name": self.call.name, "arguments": dict(self.call.arguments)}
        return {**call, "status": self.status, "text": self.text}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CallOutcome:
        """Read what `as_json` wrote; KeyError where it is something else."""
        call = ToolCall(document["name"], document["arguments"], document["id"])
        return cls(call, document["status"], document["text"])


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one write: the device as the home has it by now, and whether it followed."""

    write: Write
    now: Device
    followed: bool


def outcome(call: ToolCall, results: Sequence[Result], home: Iterable[Device]) -> CallOutcome:
    """Return what came of a call that wrote something."""
    home = tuple(home)
    by_device: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        by_device.setdefault((result.now.area, result.now.name), []).append(result)
    good = [group for group in by_device.values() if all(result.followed for result in group)]
    bad = [next(result for result in group if not result.followed) for group in by_device.values() if group not in good]
    parts = [_done(good, home)] if good else []
    parts += [_not_done(result, home) for result in bad]
    status: Status = "done"
    if bad:
        silent = all(result.now.properties.get(result.write.property_name) is None for result in bad)
        status = "unknown" if silent else "not_followed"
    return CallOutcome(call, status, " ".join(parts))


def _done(groups: Sequence[Sequence[Result]], home: Sequence[Device]) -> str:
    """Say what was done: the writes of one call do the same to each device."""
    names = join([phrase(group[0].now, home) for group in groups])
    writes = [result.write for result in groups[0]]
    levels = [write for write in writes if write.property_name != "state"]
    if not levels:
        return " ".join(_switched(alike, home) for alike in _by_way(groups))
    if levels[0].property_name == "add":
        return f"Added {levels[0].value} to {names}."
    return f"Set {names} to {join([_level(write) for write in levels])}."


def _by_way(groups: Sequence[Sequence[Result]]) -> list[list[Sequence[Result]]]:
    """Return the devices that are there, then those still on the way, by what they report."""
    ways: dict[str, list[Sequence[Result]]] = {"": []}
    for group in groups:
        state = same(group[0].now.state or "")
        ways.setdefault(state if state in _ON_THE_WAY else "", []).append(group)
    return [alike for alike in ways.values() if alike]


def _switched(groups: Sequence[Sequence[Result]], home: Sequence[Device]) -> str:
    write, now = groups[0][0].write, groups[0][0].now
    names = join([phrase(group[0].now, home) for group in groups])
    state = same(now.state or "")
    if state in _ON_THE_WAY:
        return sentence(f"{names} {'is' if len(groups) == 1 else 'are'} {state}")
    value = as_words(write.value)
    verb = _VERBS.get((now.domain, value), f"turned {value}")
    return sentence(f"{verb} {names}")


def _level(write: Write) -> str:
    """Return `40 %`, `21.5 °C` or `red`."""
    unit = UNITS.get(write.property_name)
    value = as_words(write.value)
    return f"{value} {unit}" if unit else value


def _not_done(result: Result, home: Sequence[Device]) -> str:
    """Say that a device was commanded and did not follow, with what it reports."""
    name = phrase(result.now, home)
    reported = result.now.properties.get(result.write.property_name)
    if reported is None:
        return f"I sent the command to {name}, but it has not reported whether it followed."
    prefix = "" if result.write.property_name == "state" else f"{result.write.property_name} "
    return sentence(f"{name} did not follow: it still reports {prefix}{as_words(reported)}")
