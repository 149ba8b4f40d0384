"""The home as the assistant sees it: areas, devices and their present states.

`describe` is the text the model reads at the head of a question. The reference model is trained on the
very same function, so a change here is a change of its language: train again.

    time: Friday 21:40
    kitchen (ground floor):
    - light: ceiling light, on, brightness 40 %, color red
    - temperature: thermometer, 21.5 °C
    hall:
    - lock: front door, locked

A device's kind stands before its name and its state right behind it, because a small model finds a thing by what stands
before it: "the lamp" by `light: `, the state of the front door by its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from edge_assistant.home.kinds import UNITS, Kind, kind_of

Value = str | int | float | bool

_YAML_INDICATORS = "-?:,[]{}#&*!|>'\"%@`"


@dataclass(frozen=True, slots=True)
class Device:
    """One device: where it is, what it is, and its properties, `state` first among them."""

    area: str
    name: str
    domain: str
    device_class: str | None = None
    floor: str | None = None
    unit: str | None = None
    aliases: tuple[str, ...] = ()
    properties: Mapping[str, Value] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """The row of the kinds table for this device."""
        return kind_of(self.domain, self.device_class)

    @property
    def state(self) -> str | None:
        """The main state as a word or number, None before the device has reported one."""
        value = self.properties.get("state")
        return None if value is None else as_words(value)

    def describe(self) -> str:
        """Return `light: ceiling light, on, brightness 40 %`: kind, name, state, then what else it reports."""
        kind = self.kind
        unit = self.unit or kind.unit
        parts = [self.name]
        if self.state is not None:
            parts.append(f"{self.state} {unit}" if unit and not kind.states else self.state)
        rest = [name for name in self.properties if name != "state"]
        rest.sort(key=lambda name: kind.properties.index(name) if name in kind.properties else len(kind.properties))
        for name in rest:
            value = as_words(self.properties[name])
            parts.append(f"{name} {value} {UNITS[name]}" if name in UNITS else f"{name} {value}")
        return f"{_scalar(kind.word)}: {_scalar(', '.join(parts))}"


class Home:
    """All devices, in a stable order (areas and devices as first seen)."""

    def __init__(self, devices: Iterable[Device] = ()) -> None:
        self._devices: dict[tuple[str, str], Device] = {}
        for device in devices:
            self.put(device)

    def __iter__(self) -> Iterator[Device]:
        return iter(self._devices.values())

    def __len__(self) -> int:
        return len(self._devices)

    def get(self, area: str, name: str) -> Device | None:
        """Return the device of that name in that area, None where there is none."""
        return self._devices.get((area, name))

    def put(self, device: Device) -> None:
        """Add the device, or replace the one of the same area and name."""
        self._devices[device.area, device.name] = device

    def report(self, area: str, name: str, property_name: str, value: Value) -> None:
        """Record that a listed device's property now has this value; KeyError for an unlisted device."""
        device = self._devices[area, name]
        self.put(replace(device, properties={**device.properties, property_name: value}))

    def remove(self, area: str, name: str) -> None:
        """Forget a device; nothing happens where there is none."""
        self._devices.pop((area, name), None)


def describe(devices: Iterable[Device], time: str | None = None) -> str:
    """Return the devices as YAML, area by area, with the time of day (such as `Friday 21:40`) first."""
    areas: dict[str, list[Device]] = {}
    for device in devices:
        title = f"{device.area} ({device.floor})" if device.floor else device.area
        areas.setdefault(title, []).append(device)
    lines = [f"time: {time}"] if time else []
    for title, members in areas.items():
        lines.append(f"{_scalar(title)}:")
        lines.extend(f"- {device.describe()}" for device in members)
    return "\n".join(lines)


def as_words(value: Value) -> str:
    """Return a property's value as the model reads it: `on`, `21.5`, `40`."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)


def _scalar(text: str) -> str:
    """Quote a YAML key or value only where a plain one would be read as something else."""
    risky = (
        not text
        or text[0] in _YAML_INDICATORS
        or ": " in text
        or " #" in text
        or text.endswith(":")
        or text.strip() != text
    )
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if risky else text
