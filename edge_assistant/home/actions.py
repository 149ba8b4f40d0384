"""A call becomes checked writes to properties of devices that the home lists, or an error; nothing in between.

    HassLightSet {"name": "desk lamp", "brightness": 40}   ->   desk lamp: state = on (where it is off), brightness = 40

`COMMANDS` is the whole of what can be done to a home: a tool for a kind of device that is not in it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol

from edge_assistant.errors import CallError, UnknownDeviceError
from edge_assistant.home.registry import Device, Home, Value, as_words
from edge_assistant.home.resolve import TARGET_SLOTS, names_of, resolve, target_of
from edge_assistant.home.tools import TOOLS
from edge_assistant.home.values import is_lost, same
from edge_assistant.home.wording import which
from edge_assistant.text.messages import ToolCall


@dataclass(frozen=True, slots=True)
class Command:
    """One row: what a tool does to a domain. It writes `value`, or what the slot holds, to the property."""

    tool: str
    domain: str
    property_name: str
    value: Value | None = None
    slot: str | None = None


COMMANDS: tuple[Command, ...] = (
    Command("HassTurnOn", "light", "state", "on"),
    Command("HassTurnOn", "switch", "state", "on"),
    Command("HassTurnOn", "fan", "state", "on"),
    Command("HassTurnOn", "climate", "state", "on"),
    Command("HassTurnOn", "media_player", "state", "on"),
    Command("HassTurnOn", "cover", "state", "open"),
    Command("HassTurnOn", "lock", "state", "locked"),
    Command("HassTurnOn", "vacuum", "state", "cleaning"),
    Command("HassTurnOn", "scene", "state", "on"),
    Command("HassTurnOff", "light", "state", "off"),
    Command("HassTurnOff", "switch", "state", "off"),
    Command("HassTurnOff", "fan", "state", "off"),
    Command("HassTurnOff", "climate", "state", "off"),
    Command("HassTurnOff", "media_player", "state", "off"),
    Command("HassTurnOff", "cover", "state", "closed"),
    Command("HassTurnOff", "lock", "state", "unlocked"),
    Command("HassTurnOff", "vacuum", "state", "docked"),
    Command("HassLightSet", "light", "brightness", slot="brightness"),
    Command("HassLightSet", "light", "color", slot="color"),
    Command("HassClimateSetTemperature", "climate", "target", slot="temperature"),
    Command("HassSetPosition", "cover", "position", slot="position"),
    Command("HassFanSetSpeed", "fan", "speed", slot="percentage"),
    Command("HassSetVolume", "media_player", "volume", slot="volume_level"),
    Command("HassMediaPause", "media_player", "state", "paused"),
    Command("HassMediaUnpause", "media_player", "state", "playing"),
    Command("HassVacuumStart", "vacuum", "state", "cleaning"),
    Command("HassVacuumReturnToBase", "vacuum", "state", "docked"),
    Command("HassListAddItem", "todo", "add", slot="item"),
)

EVERYDAY = frozenset({"light", "switch", "fan", "media_player"})
"""What "everything in the kitchen" switches: a lock or a garage door has to be meant by name or kind."""

ENTRANCES = frozenset({"garage", "gate", "door"})
"""Covers that "everything in the yard to 50 %" does not move, though that tool is for covers alone."""

_SWITCHED_BY = {"brightness", "color", "speed"}
"""Properties that say on or off as well: a level of 0 is off, and anything else turns on what is off."""

_FOLLOWS = {
    ("vacuum", "docked"): {"returning"},
    ("cover", "open"): {"opening"},
    ("cover", "closed"): {"closing"},
    ("lock", "locked"): {"locking"},
    ("lock", "unlocked"): {"unlocking"},
}
"""States on the way to the one asked for: the device has understood."""

_JSON_TYPES: Mapping[str, type | tuple[type, ...]] = {"string": str, "integer": int, "number": (int, float)}
_MAX_TEXT = 200


class Actuator(Protocol):
    """Where writes go: the broker, or a printer where there is none."""

    async def set(self, device: Device, property_name: str, value: Value) -> bool:
        """Command the device; True when its state followed in time."""
        ...


@dataclass(frozen=True, slots=True)
class Write:
    """One checked command: this property of this device is to become this value."""

    device: Device
    property_name: str
    value: Value


def plan(call: ToolCall, home: Home) -> tuple[Write, ...]:
    """Return the writes that carry a call out, device by device.

    Raises:
        CallError: the tool, a slot or a value cannot be, or the devices meant do not take this command.
        UnknownDeviceError: the home lists no device that the slots mean.
    """
    check_arguments(call)
    devices = _commanded(call, home)
    return tuple(write for device in devices for write in _writes(call, device))


def check_unlocking(call: ToolCall, writes: Sequence[Write]) -> None:
    """Raise CallError, with a question back, where a lock would open by words that are not its own and say no lock.

    One tool closes covers and unlocks locks: "close the door" must not open the only lock whose name ends so, nor
    "the doors" one whose kind is said to be a door.
    """
    target = target_of(call.arguments)
    if any(same(target.get(slot, "")).endswith("lock") for slot in ("name", "domain", "device_class")):
        return
    said = same(target.get("name", ""))
    meant = [write.device for write in writes if write.device.domain == "lock" and write.value == "unlocked"]
    if loose := [device for device in meant if said not in names_of(device)]:
        raise CallError(which(loose, said or "lock"))


def check_arguments(call: ToolCall) -> None:
    """Raise CallError where a call's tool or slots are not those of `TOOLS`, by type and range."""
    schema = next((tool.parameters for tool in TOOLS if tool.name == call.name), None)
    if schema is None:
        raise CallError(f"I have no way to do {call.name}.")
    missing = [slot for slot in schema["required"] if call.arguments.get(slot) is None]
    if missing:
        raise CallError(f"{call.name} needs a value for {missing[0]}.")
    for slot, value in call.arguments.items():
        if slot not in schema["properties"]:
            raise CallError(f"{call.name} takes no {slot}.")
        _check_value(slot, value, schema["properties"][slot])


def awaited(device: Device, property_name: str) -> bool:
    """Return whether the device reports this property, so that one can see it follow."""
    return device.domain != "scene" and property_name != "add"


def followed(device: Device, property_name: str, wanted: Value) -> bool:
    """Return whether what the device reports is what was asked for, or on the way to it."""
    reported = device.properties.get(property_name)
    if reported is None:
        return False
    if _is_number(wanted) and _is_number(reported):
        tolerance = 0.05 if property_name == "target" else 1
        return abs(float(wanted) - float(reported)) <= tolerance
    now, then = same(as_words(reported)), same(as_words(wanted))
    if property_name == "state" and then == "on" and device.domain in {"climate", "media_player"}:
        return now != "off" and not is_lost(now)
    return now == then or now in _FOLLOWS.get((device.domain, then), ())


def _is_number(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_value(slot: str, value: Any, rule: Mapping[str, Any]) -> None:
    if not isinstance(value, _JSON_TYPES[rule["type"]]) or isinstance(value, bool):
        raise CallError(f"{slot} has to be {'text' if rule['type'] == 'string' else 'a number'}, not {value!r}.")
    if isinstance(value, str):
        if len(value) > _MAX_TEXT or not value.isprintable() or (not value.strip() and slot not in TARGET_SLOTS):
            raise CallError(f"{slot} has to be one line of 1 to {_MAX_TEXT} characters.")
        return
    low, high = rule.get("minimum", value), rule.get("maximum", value)
    if not low <= value <= high:
        span = f"from {low} to {high}" if "maximum" in rule else f"at least {low}"
        raise CallError(f"{slot} has to be {span}, not {value}.")


def _commanded(call: ToolCall, home: Home) -> Sequence[Device]:
    """Return the devices that a call means, of those that take its command; ask back where it does not say which."""
    target = target_of(call.arguments)
    domains = {command.domain for command in COMMANDS if command.tool == call.name}
    try:
        found = resolve((device for device in home if device.domain in domains), target)
    except UnknownDeviceError:
        found = []
    able = [device for device in found if device.domain in domains]  # not the thermometer inside a thermostat
    if not able:
        raise CallError(_unable(call, resolve(home, target)))
    if len(able) > 1 and ("name" in target or not target):
        raise CallError(which(able, target.get("name", "device")))
    if not target.keys() & {"name", "domain", "device_class"}:
        able = [device for device in able if _need_not_be_named(device, domains)]
        if not able:
            raise CallError("Which device do you mean?")
    return able


def _need_not_be_named(device: Device, domains: Set[str]) -> bool:
    return device.domain in EVERYDAY if len(domains) > 1 else device.device_class not in ENTRANCES


def _unable(call: ToolCall, found: Sequence[Device]) -> str:
    what = f"The {found[0].name}" if len(found) == 1 else "Such a device"
    return f"{what} cannot do that: {call.name} is not for a {found[0].kind.word}."


def _writes(call: ToolCall, device: Device) -> list[Write]:
    writes: list[Write] = []
    for command in COMMANDS:
        if command.tool != call.name or command.domain != device.domain:
            continue
        value = command.value if command.slot is None else call.arguments.get(command.slot)
        if value is not None:
            writes += [write for write in _switched(Write(device, command.property_name, value)) if write not in writes]
    if not writes:
        slots = " or ".join(command.slot or "" for command in COMMANDS if command.tool == call.name)
        raise CallError(f"{call.name} needs a value for {slots}.")
    return writes


def _switched(write: Write) -> list[Write]:
    """Add what a level says of on and off: 0 turns off, more turns on what is off."""
    if write.property_name not in _SWITCHED_BY:
        return [write]
    if not write.value:
        return [Write(write.device, "state", "off")]
    return [Write(write.device, "state", "on"), write] if write.device.state == "off" else [write]
