"""Random homes of many shapes, with sensible states."""

from __future__ import annotations

from dataclasses import dataclass, replace
from string import capwords
from typing import TYPE_CHECKING

from edge_assistant.home.kinds import KINDS, Kind
from edge_assistant.home.registry import Device, Value
from edge_assistant_export.reference_model import made_up
from edge_assistant_export.reference_model.lexicon.names import (
    AREAS,
    COLORS,
    DEVICES,
    FLOORS,
    HOUSEHOLD_AREAS,
    PEOPLE,
)

if TYPE_CHECKING:
    from random import Random

BY_WORD = {kind.word: kind for kind in KINDS}
_COMMON = {
    "light": 30,
    "switch": 6,
    "outlet": 5,
    "fan": 6,
    "lock": 6,
    "blind": 7,
    "curtain": 5,
    "shutter": 5,
    "awning": 2,
    "garage": 2,
    "gate": 2,
    "climate": 8,
    "media player": 8,
    "vacuum": 4,
    "scene": 0,
    "todo": 0,
    "person": 0,
    "temperature": 7,
    "humidity": 4,
    "illuminance": 2,
    "power": 3,
    "energy": 2,
    "battery": 2,
    "co2": 2,
    "pressure": 1,
    "soil moisture": 1,
    "door": 5,
    "window": 6,
    "motion": 4,
    "occupancy": 2,
    "smoke": 3,
    "gas": 1,
    "leak": 2,
}
_HOUSEHOLD = {"scene": 5, "todo": 4, "person": 6}
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, slots=True)
class House:
    """A home at one moment: its devices in the order of the prompt, and the time where it is known."""

    devices: tuple[Device, ...]
    time: str | None

    @property
    def areas(self) -> tuple[str, ...]:
        """The areas, in order."""
        return tuple(dict.fromkeys(device.area for device in self.devices))

    @property
    def floors(self) -> tuple[str, ...]:
        """The floors that are named, in order."""
        return tuple(dict.fromkeys(device.floor for device in self.devices if device.floor))


def percent(rng: Random) -> int:
    """Return a percentage, most often a round one."""
    return rng.choice((rng.randrange(10, 100, 10), rng.randrange(5, 100, 5), rng.randint(1, 100)))


def reading(rng: Random, kind: str) -> Value:
    """Return what a sensor of that kind may show."""
    tenth = {"temperature": (-5, 32), "energy": (0, 900), "power": (0, 300)}
    if kind in tenth and rng.random() < 0.75:
        return round(rng.uniform(*tenth[kind]), 1)
    whole = {
        "temperature": (-10, 35),
        "humidity": (15, 95),
        "illuminance": (0, 2000),
        "power": (0, 3000),
        "energy": (0, 9000),
        "battery": (1, 100),
        "co2": (380, 2200),
        "pressure": (960, 1045),
        "soil moisture": (5, 90),
        "todo": (0, 20),
    }
    return rng.randint(*whole[kind])


def properties(rng: Random, kind: Kind) -> dict[str, Value]:
    """Return a state for a device of the kind, and often what else it reports."""
    if kind.word == "scene":
        return {}
    if not kind.states:
        return {"state": reading(rng, kind.word)}
    state = rng.choice(kind.states)
    found: dict[str, Value] = {"state": state}
    for name in kind.properties:
        if rng.random() < (0.75 if kind.word != "light" or name == "brightness" else 0.35):
            found[name] = _property(rng, name)
    if kind.word in ("light", "fan", "media player") and state == "off":
        return {"state": state}
    if "position" in found:
        if state == "closed":
            found["position"] = 0
        if rng.random() < 0.5:
            del found["position"]
    return found


def _property(rng: Random, name: str) -> Value:
    if name == "color":
        return rng.choice(COLORS)
    if name == "temperature":
        return round(rng.uniform(14, 29), 1) if rng.random() < 0.7 else rng.randint(14, 29)
    if name == "target":
        return rng.randint(16, 26) if rng.random() < 0.7 else rng.randint(16, 25) + 0.5
    return percent(rng)


def _device_name(rng: Random, kind: Kind, area: str, made_up_share: float) -> str:
    known = DEVICES[kind.word]
    if rng.random() < made_up_share:
        return made_up.name(rng, rng.choice(known).split(" ")[-1])
    roll = rng.random()
    if roll < 0.07:
        return f"{area} {rng.choice(known)}"
    if roll < 0.1:
        return f"{rng.choice(PEOPLE)}'s {rng.choice(known)}"
    if roll < 0.13:
        return f"{rng.choice(known)} {rng.randint(1, 9)}"
    return rng.choice(known)


def _area_names(rng: Random, count: int, made_up_share: float) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < count:
        tail = rng.choice(("room", "room", "hall", "house", "suite", ""))
        names[made_up.name(rng, tail) if rng.random() < made_up_share else rng.choice(AREAS)] = None
    return list(names)


def _household(rng: Random, made_up_share: float) -> list[Device]:
    area = rng.choice(HOUSEHOLD_AREAS)
    members: list[Device] = []
    for word, most in (("person", 3), ("scene", 3), ("todo", 2)):
        for _ in range(rng.randint(0, most) if rng.random() < 0.55 else 0):
            fresh = rng.random() < made_up_share
            if word == "person":
                name = made_up.syllables(rng).capitalize() if fresh else rng.choice(PEOPLE)
            else:
                name = made_up.name(rng, "list" if word == "todo" else "") if fresh else rng.choice(DEVICES[word])
            members.append(_device(rng, BY_WORD[word], area, name, None))
    return members


def _device(rng: Random, kind: Kind, area: str, name: str, floor: str | None) -> Device:
    return Device(area, name, kind.domain, kind.device_class, floor, properties=properties(rng, kind))


def house(rng: Random, low: int = 3, high: int = 16, made_up_share: float | None = None) -> House:
    """Return a home of about `low` to `high` devices; by default each home has its own share of made-up names."""
    share = rng.choice((0.0, 0.4, 1.0, 1.0, 1.0)) if made_up_share is None else made_up_share
    count = rng.randint(low, high)
    areas = _area_names(rng, max(1, min(8, round(count / rng.uniform(1.3, 4.5)))), share)
    floors = _floors(rng, areas)
    preferred = [rng.choice(list(_COMMON)) for _ in range(3)]
    devices: list[Device] = _household(rng, share) if rng.random() < 0.55 else []
    while len(devices) < count:
        area = rng.choice(areas)
        kind = BY_WORD[rng.choice(preferred) if rng.random() < 0.2 else _draw_kind(rng)]
        if kind.word in _HOUSEHOLD:
            continue
        if devices and rng.random() < 0.12:
            kind, name = devices[-1].kind, devices[-1].name
            if kind.word in _HOUSEHOLD:
                continue
        else:
            name = _device_name(rng, kind, area, share)
        devices.append(_device(rng, kind, area, name, floors.get(area)))
    unique = {(device.area.lower(), device.name.lower()): device for device in devices}
    return House(_ordered(rng, list(unique.values())), _time(rng))


def _draw_kind(rng: Random) -> str:
    return rng.choices(list(_COMMON), list(_COMMON.values()))[0]


def _floors(rng: Random, areas: list[str]) -> dict[str, str]:
    if rng.random() < 0.6:
        return {}
    names = rng.sample(FLOORS, rng.randint(1, 3))
    return {area: rng.choice(names) for area in areas if rng.random() < 0.85}


def _ordered(rng: Random, devices: list[Device]) -> tuple[Device, ...]:
    areas = list(dict.fromkeys(device.area for device in devices))
    rng.shuffle(areas)
    ordered = [device for area in areas for device in devices if device.area == area]
    if rng.random() < 0.12:
        ordered = [replace(device, area=capwords(device.area), name=capwords(device.name)) for device in ordered]
    return tuple(ordered)


def _time(rng: Random) -> str | None:
    if rng.random() < 0.2:
        return None
    return f"{rng.choice(_DAYS)} {rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
