"""The tools a model may call, by Home Assistant's names: what each takes, as JSON schema.

A model that was trained on them (`tools = "learnt"` in its manifest) needs no list in the prompt; any other is
given `TOOLS` in its instruct format's own block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_assistant.text.messages import Tool

_TARGET = {
    "name": {"type": "string", "description": "the device's name"},
    "area": {"type": "string", "description": "the area's name"},
    "floor": {"type": "string", "description": "the floor's name"},
    "domain": {"type": "string", "description": "light, switch, cover, lock, fan, climate, ..."},
    "device_class": {"type": "string", "description": "blind, curtain, window, door, temperature, ..."},
}
_PERCENT = {"type": "integer", "minimum": 0, "maximum": 100}
_COUNT = {"type": "integer", "minimum": 0}


def _tool(name: str, description: str, /, *required: str, **extra: Mapping[str, Any]) -> Tool:
    targeted = name not in _UNTARGETED
    properties = {**(_TARGET if targeted else {}), **extra}
    schema = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    return Tool(name, description, schema)


_UNTARGETED = frozenset({"HassStartTimer", "HassCancelTimer", "HassListAddItem"})

TOOLS: tuple[Tool, ...] = (
    _tool("HassTurnOn", "Turn on a device; open a cover; lock a lock; activate a scene"),
    _tool("HassTurnOff", "Turn off a device; close a cover; unlock a lock"),
    _tool(
        "HassLightSet",
        "Set a light's brightness in percent or its color",
        brightness=_PERCENT,
        color={"type": "string"},
    ),
    _tool(
        "HassClimateSetTemperature",
        "Set the target temperature in °C",
        "temperature",
        temperature={"type": "number", "minimum": 5, "maximum": 35},
    ),
    _tool("HassSetPosition", "Set a cover's position in percent, 100 is open", "position", position=_PERCENT),
    _tool("HassFanSetSpeed", "Set a fan's speed in percent", "percentage", percentage=_PERCENT),
    _tool("HassGetState", "List or count devices by area, kind or state", state={"type": "string"}),
    _tool("HassMediaPause", "Pause a media player"),
    _tool("HassMediaUnpause", "Resume a media player"),
    _tool("HassSetVolume", "Set a media player's volume in percent", "volume_level", volume_level=_PERCENT),
    _tool("HassVacuumStart", "Start a vacuum"),
    _tool("HassVacuumReturnToBase", "Send a vacuum back to its dock"),
    _tool(
        "HassStartTimer",
        "Start a timer",
        hours=_COUNT,
        minutes=_COUNT,
        seconds=_COUNT,
        name={"type": "string", "description": "what the timer is for"},
    ),
    _tool("HassCancelTimer", "Cancel a timer", name={"type": "string", "description": "what the timer is for"}),
    _tool(
        "HassListAddItem",
        "Add an item to a list",
        "item",
        item={"type": "string"},
        name={"type": "string", "description": "the list's name"},
    ),
)
