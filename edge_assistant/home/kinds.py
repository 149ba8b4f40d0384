"""The kinds of device the assistant knows, by the words Home Assistant uses for them.

A kind is the short word that stands before a device's state in the prompt (`blind, closed`). Home Assistant
splits the same notion in two, a domain and sometimes a device class; this table is the one place that maps
between them. A device of a kind that is not listed keeps its own word and can be asked about, not commanded.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One row: the word in the prompt, Home Assistant's names for it, and what its state can be."""

    word: str
    domain: str
    device_class: str | None = None
    states: tuple[str, ...] = ()
    """The states it may report, as words; empty for a measured number."""
    unit: str | None = None
    """The unit of the state when the device names none."""
    properties: tuple[str, ...] = ()
    """What else it may report, in the order of the prompt."""


_COVER = ("open", "closed")

KINDS: tuple[Kind, ...] = (
    Kind("light", "light", states=("on", "off"), properties=("brightness", "color")),
    Kind("switch", "switch", states=("on", "off")),
    Kind("outlet", "switch", "outlet", states=("on", "off")),
    Kind("fan", "fan", states=("on", "off"), properties=("speed",)),
    Kind("lock", "lock", states=("locked", "unlocked")),
    Kind("blind", "cover", "blind", _COVER, properties=("position",)),
    Kind("curtain", "cover", "curtain", _COVER, properties=("position",)),
    Kind("shutter", "cover", "shutter", _COVER, properties=("position",)),
    Kind("awning", "cover", "awning", _COVER, properties=("position",)),
    Kind("garage", "cover", "garage", _COVER, properties=("position",)),
    Kind("gate", "cover", "gate", _COVER, properties=("position",)),
    Kind("climate", "climate", states=("heat", "cool", "auto", "off"), properties=("temperature", "target")),
    Kind("media player", "media_player", states=("playing", "paused", "off"), properties=("volume",)),
    Kind("vacuum", "vacuum", states=("docked", "cleaning", "returning"), properties=("battery",)),
    Kind("scene", "scene"),
    Kind("todo", "todo", unit="items"),
    Kind("person", "person", states=("home", "away")),
    Kind("temperature", "sensor", "temperature", unit="°C"),
    Kind("humidity", "sensor", "humidity", unit="%"),
    Kind("illuminance", "sensor", "illuminance", unit="lx"),
    Kind("power", "sensor", "power", unit="W"),
    Kind("energy", "sensor", "energy", unit="kWh"),
    Kind("battery", "sensor", "battery", unit="%"),
    Kind("co2", "sensor", "carbon_dioxide", unit="ppm"),
    Kind("pressure", "sensor", "pressure", unit="hPa"),
    Kind("soil moisture", "sensor", "moisture", unit="%"),
    Kind("door", "binary_sensor", "door", ("open", "closed")),
    Kind("window", "binary_sensor", "window", ("open", "closed")),
    Kind("motion", "binary_sensor", "motion", ("detected", "clear")),
    Kind("occupancy", "binary_sensor", "occupancy", ("detected", "clear")),
    Kind("smoke", "binary_sensor", "smoke", ("detected", "clear")),
    Kind("gas", "binary_sensor", "gas", ("detected", "clear")),
    Kind("leak", "binary_sensor", "moisture", ("wet", "dry")),
)

UNITS = {
    "brightness": "%",
    "speed": "%",
    "position": "%",
    "volume": "%",
    "battery": "%",
    "temperature": "°C",
    "target": "°C",
}
"""Units of the properties beside the state."""

_BY_NAMES = {(kind.domain, kind.device_class): kind for kind in KINDS}


def kind_of(domain: str, device_class: str | None = None) -> Kind:
    """Return the kind for Home Assistant's names; an unknown pair makes a kind of its own word."""
    known = _BY_NAMES.get((domain, device_class)) or _BY_NAMES.get((domain, None))
    if known is not None and (device_class is None or known.device_class == device_class):
        return known
    return Kind((device_class or domain).replace("_", " "), domain, device_class)
