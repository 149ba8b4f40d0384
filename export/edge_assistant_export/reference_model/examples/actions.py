"""What can be done to each kind of device: the intent it is said by, the tool, and the value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge_assistant_export.reference_model import values
from edge_assistant_export.reference_model.lexicon.names import COLORS

if TYPE_CHECKING:
    from random import Random

ON, OFF = "HassTurnOn", "HassTurnOff"
COVERS = ("blind", "curtain", "shutter", "awning", "garage", "gate", "cover")
COMMANDED = ("light", "switch", "outlet", "fan", "lock", *COVERS[:-1], "climate", "media player", "vacuum")
"""Kinds that stand in areas and can be commanded."""

DIM, HALF, BRIGHT, FULL, NIGHT = 30, 50, 80, 100, 5
"""Percentages that words of brightness stand for."""
WARMER, COOLER = 23, 18
"""Targets in °C for "warmer" and "cooler"."""


@dataclass(frozen=True, slots=True)
class Action:
    """An intent of the lexicon with what it means."""

    kind: str
    intent: str
    tool: str
    extra: dict[str, Any] = field(default_factory=dict)
    slots: dict[str, str] = field(default_factory=dict)


def _light(rng: Random) -> Action:
    roll = rng.random()
    if roll < 0.36:
        return Action("on-off", "on", ON)
    if roll < 0.68:
        return Action("on-off", "off", OFF)
    if roll < 0.78:
        value = values.percentage(rng)
        return Action(
            "brightness", "brightness", "HassLightSet", {"brightness": value}, {"n": values.percentage_said(rng, value)}
        )
    if roll < 0.88:
        color = rng.choice(COLORS)
        return Action("color", "color", "HassLightSet", {"color": color}, {"c": color})
    intent, value = rng.choice(
        (
            ("bright_low", DIM),
            ("bright_low", DIM),
            ("bright_high", BRIGHT),
            ("bright_full", FULL),
            ("bright_half", HALF),
            ("bright_night", NIGHT),
        )
    )
    return Action("brightness", intent, "HassLightSet", {"brightness": value})


def _power(rng: Random) -> Action:
    return rng.choice((Action("on-off", "on", ON), Action("on-off", "off", OFF)))


def _fan(rng: Random) -> Action:
    if rng.random() < 0.55:
        return _power(rng)
    if rng.random() < 0.6:
        value = values.percentage(rng)
        return Action(
            "speed", "speed", "HassFanSetSpeed", {"percentage": value}, {"n": values.percentage_said(rng, value)}
        )
    intent, value = rng.choice((("speed_high", 100), ("speed_medium", 50), ("speed_low", 25)))
    return Action("speed", intent, "HassFanSetSpeed", {"percentage": value})


def _lock(rng: Random) -> Action:
    return rng.choice((Action("lock", "lock", ON), Action("lock", "unlock", OFF)))


def _cover(rng: Random) -> Action:
    roll = rng.random()
    if roll < 0.36:
        return Action("cover", "open", ON)
    if roll < 0.72:
        return Action("cover", "close", OFF)
    if roll < 0.87:
        value = values.percentage(rng)
        return Action(
            "position", "position", "HassSetPosition", {"position": value}, {"n": values.percentage_said(rng, value)}
        )
    intent, value = rng.choice((("half_open", 50), ("half_open", 50), ("crack_open", 10)))
    return Action("position", intent, "HassSetPosition", {"position": value})


def _climate(rng: Random) -> Action:
    if rng.random() < 0.4:
        return _power(rng)
    value = values.degrees(rng)
    return Action(
        "climate",
        "climate",
        "HassClimateSetTemperature",
        {"temperature": value},
        {"v": values.degrees_said(rng, value)},
    )


def _media(rng: Random) -> Action:
    roll = rng.random()
    if roll < 0.28:
        return _power(rng)
    if roll < 0.46:
        return Action("media", "pause", "HassMediaPause")
    if roll < 0.64:
        return Action("media", "unpause", "HassMediaUnpause")
    if roll < 0.8:
        value = values.percentage(rng)
        return Action(
            "volume", "volume", "HassSetVolume", {"volume_level": value}, {"n": values.percentage_said(rng, value)}
        )
    intent, value = rng.choice((("volume_high", 70), ("volume_low", 20), ("mute", 0)))
    return Action("volume", intent, "HassSetVolume", {"volume_level": value})


def _vacuum(rng: Random) -> Action:
    return rng.choice(
        (Action("vacuum", "start_vacuum", "HassVacuumStart"), Action("vacuum", "dock_vacuum", "HassVacuumReturnToBase"))
    )


_BY_KIND = {"light": _light, "fan": _fan, "lock": _lock, "climate": _climate, "media player": _media, "vacuum": _vacuum}


def action(rng: Random, kind: str) -> Action:
    """Return something to do to a device of the kind."""
    if kind == "scene":
        return Action("scene", "scene", ON)
    if kind in COVERS:
        return _cover(rng)
    return _BY_KIND.get(kind, _power)(rng)
