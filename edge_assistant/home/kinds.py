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
    called: tuple[str, ...] = ()
    """What else people call one, so that "the lamp" is a light."""


_COVER = ("open", "closed")

KINDS: tuple[Kind, ...] = (
    Kind(
        "light",
        "light",
        states=("on", "off"),
        properties=("brightness", "color"),
        called=("lamp", "lighting", "light bulb", "bulb"),
    ),
    Kind("switch", "switch", states=("on", "off")),
    Kind("outlet", "switch", "outlet", states=("on", "off"), called=("plug", "socket")),
    Kind("fan", "fan", states=("on", "off"), properties=("speed",), called=("ventilator",)),
    Kind("lock", "lock", states=("locked", "unlocked"), called=("door lock",)),
    Kind("blind", "cover", "blind", _COVER, properties=("position",), called=("shade",)),
    Kind("curtain", "cover", "curtain", _COVER, properties=("position",), called=("drape",)),
    Kind("shutter", "cover", "shutter", _COVER, properties=("position",), called=("roller shutter",)),
    Kind("awning", "cover", "awning", _COVER, properties=("position",), called=("sun awning",)),
    Kind("garage", "cover", "garage", _COVER, properties=("position",), called=("garage door",)),
    Kind("gate", "cover", "gate", _COVER, properties=("position",)),
    Kind(
        "climate",
        "climate",
        states=("heat", "cool", "auto", "off"),
        properties=("temperature", "target"),
        called=("heating", "thermostat", "heat", "heater", "radiator", "ac", "air conditioning"),
    ),
    Kind(
        "media player",
        "media_player",
        states=("playing", "paused", "off"),
        properties=("volume",),
        called=("music", "speaker", "player"),
    ),
    Kind(
        "vacuum",
        "vacuum",
        states=("docked", "cleaning", "returning"),
        properties=("battery",),
        called=("robot vacuum", "hoover", "vacuum cleaner"),
    ),
    Kind("scene", "scene"),
    Kind("todo", "todo", unit="items", called=("list", "todo list")),
    Kind("person", "person", states=("home", "away")),
    Kind("temperature", "sensor", "temperature", unit="°C", called=("thermometer", "temperature sensor")),
    Kind("humidity", "sensor", "humidity", unit="%", called=("humidity sensor", "hygrometer")),
    Kind("illuminance", "sensor", "illuminance", unit="lx", called=("light sensor",)),
    Kind("power", "sensor", "power", unit="W", called=("power meter",)),
    Kind("energy", "sensor", "energy", unit="kWh", called=("energy meter",)),
    Kind("battery", "sensor", "battery", unit="%"),
    Kind("co2", "sensor", "carbon_dioxide", unit="ppm", called=("co2 sensor",)),
    Kind("pressure", "sensor", "pressure", unit="hPa", called=("barometer",)),
    Kind("soil moisture", "sensor", "moisture", unit="%", called=("soil sensor", "plant sensor")),
    Kind("door", "binary_sensor", "door", ("open", "closed")),
    Kind("window", "binary_sensor", "window", ("open", "closed")),
    Kind("motion", "binary_sensor", "motion", ("detected", "clear"), called=("motion sensor", "motion detector")),
    Kind(
        "occupancy",
        "binary_sensor",
        "occupancy",
        ("detected", "clear"),
        called=("occupancy sensor", "presence sensor"),
    ),
    Kind("smoke", "binary_sensor", "smoke", ("detected", "clear"), called=("smoke detector", "smoke alarm")),
    Kind("gas", "binary_sensor", "gas", ("detected", "clear"), called=("gas detector", "gas alarm")),
    Kind("leak", "binary_sensor", "moisture", ("wet", "dry"), called=("leak sensor", "water sensor")),
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
