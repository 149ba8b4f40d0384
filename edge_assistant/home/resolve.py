"""Which devices a call means: its slots held against what the home lists.

    {"name": "lamp", "area": "hall"}                                one device, or one of a name in several areas
    {"area": "kitchen", "domain": "light"}                          all lights of the kitchen
    {"floor": "upstairs", "domain": "cover", "device_class": "blind"}   all blinds upstairs
    {"domain": "lock"}                                              all locks

Slots narrow: a device is meant when it matches every slot given. Spelling counts as `values.same` says.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from edge_assistant.errors import UnknownDeviceError
from edge_assistant.home.registry import Device
from edge_assistant.home.values import same

TARGET_SLOTS = ("name", "area", "floor", "domain", "device_class")


def names_of(device: Device) -> set[str]:
    """Return all that a device may be called: its name, its aliases, and area and name in one (`hall lamp`)."""
    own = {same(name) for name in (device.name, *device.aliases)}
    return own | {f"{same(device.area)} {name}" for name in own}


_MATCHES: Mapping[str, Callable[[Device, str], bool]] = {
    "name": lambda device, wanted: wanted in names_of(device),
    "area": lambda device, wanted: wanted == same(device.area),
    "floor": lambda device, wanted: device.floor is not None and wanted == same(device.floor),
    "domain": lambda device, wanted: wanted in {same(device.domain), device.kind.word},
    "device_class": lambda device, wanted: wanted in {same(device.device_class or ""), device.kind.word},
}


def target_of(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the slots that say which devices are meant, those that are empty left out."""
    return {slot: str(arguments[slot]) for slot in TARGET_SLOTS if arguments.get(slot)}


def resolve(devices: Iterable[Device], target: Mapping[str, str]) -> list[Device]:
    """Return the devices that match every slot, in the home's order.

    Raises:
        UnknownDeviceError: no device does; it names what comes close.
    """
    listed = list(devices)
    found = [device for device in listed if all(_MATCHES[slot](device, same(text)) for slot, text in target.items())]
    if not found:
        raise UnknownDeviceError(_wanted(target), _nearest(listed, target))
    return found


def _wanted(target: Mapping[str, str]) -> str:
    """Return the target in words: `device called "lamp" in "hall"`."""
    words = [(target.get("device_class") or target.get("domain") or "device").replace("_", " ")]
    if "name" in target:
        words.append(f'called "{target["name"]}"')
    if "area" in target:
        words.append(f'in "{target["area"]}"')
    if "floor" in target:
        words.append(f'on "{target["floor"]}"')
    return " ".join(words)


def _nearest(devices: list[Device], target: Mapping[str, str]) -> list[str]:
    """Return the home's names that come closest to the one that fits no device."""
    if "name" in target:
        spelled = {same(name): name for device in devices for name in (device.name, *device.aliases)}
        wanted = target["name"]
    elif "area" in target:
        spelled = {same(device.area): device.area for device in devices}
        wanted = target["area"]
    else:
        return []
    close = difflib.get_close_matches(same(wanted), spelled, n=2, cutoff=0.7)
    return [spelled[name] for name in close if name != same(wanted)]
