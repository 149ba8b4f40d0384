"""Which devices a call means: its slots held against what the home lists.

    {"name": "desk lamp", "area": "hall"}                               one device
    {"name": "lamp"}                                                    whatever "the lamp" may mean, one device or more
    {"area": "kitchen", "domain": "light"}                              all lights of the kitchen
    {"floor": "upstairs", "domain": "cover", "device_class": "blind"}   all blinds upstairs
    {"domain": "lock"}                                                  all locks

Slots narrow: a device is meant when it matches every slot given. Spelling counts as `values.same` says. A model passes
a name on as it was said; what it means in this home, whether that is one device, several or none, is decided here,
because a model may not see the whole home and must not guess at a lock.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from edge_assistant.errors import UnknownDeviceError
from edge_assistant.home.kinds import kind_of
from edge_assistant.home.registry import Device
from edge_assistant.home.values import same
from edge_assistant.home.wording import noun, on_floor, the

TARGET_SLOTS = ("name", "area", "floor", "domain", "device_class")

Matcher = Callable[[Device, str], bool]


def names_of(device: Device) -> set[str]:
    """Return all that a device may be called: its name, its aliases, and area and name in one (`hall lamp`)."""
    own = {same(name) for name in (device.name, *device.aliases)}
    return own | {f"{same(device.area)} {name}" for name in own}


def _is_called(device: Device, wanted: str) -> bool:
    return wanted in names_of(device)


def _ends_with(device: Device, wanted: str) -> bool:
    """Say whether the words are the last of a name: "the lamp" for the desk lamp."""
    return any(name.endswith(f" {wanted}") for name in names_of(device))


def _is_a(device: Device, wanted: str) -> bool:
    """Say whether the words are for the device's kind, alone or behind its area: "the lamp", "the hall lamp"."""
    words = (device.kind.word, *device.kind.called)
    return wanted in words or any(wanted == f"{same(device.area)} {word}" for word in words)


_NAMED: tuple[Matcher, ...] = (_is_called, _ends_with, _is_a)
"""What a name can mean, the closest meaning first: the first that any device has counts."""

_MATCHES: Mapping[str, Matcher] = {
    "area": lambda device, wanted: wanted == same(device.area),
    "floor": lambda device, wanted: device.floor is not None and wanted == same(device.floor),
    "domain": lambda device, wanted: wanted in {same(device.domain), device.kind.word},
    "device_class": lambda device, wanted: wanted in {same(device.device_class or ""), device.kind.word},
}


def target_of(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the slots that say which devices are meant, those that hold no word left out."""
    return {slot: str(arguments[slot]) for slot in TARGET_SLOTS if same(str(arguments.get(slot) or ""))}


def resolve(devices: Iterable[Device], target: Mapping[str, str]) -> list[Device]:
    """Return the devices that match every slot, in the home's order.

    Raises:
        UnknownDeviceError: no device does; it says what is missing and what comes close.
    """
    listed = list(devices)
    found = _matching(listed, target) or _matching(_thermometers(listed), target)
    if not found:
        raise _unknown(listed, target)
    return found


def _matching(devices: list[Device], target: Mapping[str, str]) -> list[Device]:
    wanted = {slot: same(text) for slot, text in target.items()}
    name = wanted.pop("name", None)
    found = [device for device in devices if all(_MATCHES[slot](device, text) for slot, text in wanted.items())]
    return found if name is None else _named(found, name)


def _thermometers(devices: list[Device]) -> list[Device]:
    """Return the temperature sensors inside thermostats, as devices: they answer where a room has no other."""
    return [
        replace(
            device,
            domain="sensor",
            device_class="temperature",
            properties={"state": device.properties["temperature"]},
        )
        for device in devices
        if device.domain == "climate" and "temperature" in device.properties
    ]


def _named(devices: list[Device], wanted: str) -> list[Device]:
    for fits in _NAMED:
        found = [device for device in devices if fits(device, wanted)]
        if found:
            return found
    return []


def _unknown(devices: list[Device], target: Mapping[str, str]) -> UnknownDeviceError:
    """Return the error for a target that fits no device: it names the first thing that the home lacks."""
    for slot, known in (
        ("area", [device.area for device in devices]),
        ("floor", [device.floor for device in devices if device.floor]),
    ):
        if slot in target and same(target[slot]) not in {same(place) for place in known}:
            return UnknownDeviceError(target[slot], [the(place) for place in _close(target[slot], known)])
    place = f" in {the(target['area'])}" if "area" in target else ""
    place += f" {on_floor(target['floor'])}" if "floor" in target else ""
    if "name" not in target:
        return UnknownDeviceError(f"{_kind_said(target)}{place}")
    elsewhere = [device for device in devices if place and _is_called(device, same(target["name"]))]
    if elsewhere:
        return UnknownDeviceError(f"{target['name']}{place}", [f"the one in {the(one.area)}" for one in elsewhere[:2]])
    names = [name for device in devices for name in (device.name, *device.aliases)]
    return UnknownDeviceError(f"{target['name']}{place}", [the(name) for name in _close(target["name"], names)])


def _kind_said(target: Mapping[str, str]) -> str:
    if "domain" in target:
        return noun(kind_of(same(target["domain"]).replace(" ", "_"), target.get("device_class")), 1)
    return target.get("device_class", "device").replace("_", " ")


def _close(wanted: str, known: Iterable[str]) -> list[str]:
    """Return the home's own spellings that come closest to a text."""
    spelled = {same(name): name for name in known}
    close = difflib.get_close_matches(same(wanted), spelled, n=2, cutoff=0.7)
    return [spelled[name] for name in close if name != same(wanted)]
