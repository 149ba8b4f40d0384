"""A home from a file: area -> device -> what it is and what it reports, in YAML or JSON.

    kitchen:
      ceiling light: {domain: light, state: "on", brightness: 40}
    hall:
      front door: {domain: lock, state: locked, floor: ground floor, aliases: [main door]}

What is no description of the device (domain, device_class, floor, unit, aliases) is a property that it reports.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from edge_assistant.errors import HomeFileError
from edge_assistant.home.kinds import kind_of
from edge_assistant.home.registry import Device, Home, Value
from edge_assistant.home.values import canonical_state, one_line, read_value

_TEXTS = ("domain", "device_class", "floor", "unit")


def read_home(path: Path) -> Home:
    """Read a home from a file; HomeFileError names the file, the area, the device and the key at fault."""
    try:
        text = path.read_text(encoding="utf-8")
        areas = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise HomeFileError(path, "", error.strerror or str(error)) from error
    except (yaml.YAMLError, ValueError) as error:
        raise HomeFileError(path, "", f"neither YAML nor JSON: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise HomeFileError(path, "", "it is nested too deep to be a home") from error
    home = Home()
    for area, devices in _table(path, "", areas or {}).items():
        for name, description in _table(path, area, devices).items():
            home.put(_device(path, area, name, _table(path, f"{area}.{name}", description)))
    return home


def _table(path: Path, key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise HomeFileError(path, key, f"has to be a table of {'properties' if '.' in key else 'names'}, not {value!r}")
    for name in value:
        if not isinstance(name, str) or not name or name != one_line(name):
            raise HomeFileError(path, key, f"{name!r} is no name; put it in quotes, on one line")
    return value


def _device(path: Path, area: str, name: str, description: Mapping[str, Any]) -> Device:
    key = f"{area}.{name}"
    if "domain" not in description:
        raise HomeFileError(path, f"{key}.domain", "is missing; it is light, switch, lock, sensor or the like")
    texts = {word: _text(path, f"{key}.{word}", description[word]) for word in _TEXTS if word in description}
    aliases = description.get("aliases", [])
    if not isinstance(aliases, list):
        raise HomeFileError(path, f"{key}.aliases", f"has to be a list of names, not {aliases!r}")
    kind = kind_of(texts["domain"], texts.get("device_class"))
    properties: dict[str, Value] = {}
    for word, value in description.items():
        if word not in (*_TEXTS, "aliases"):
            properties[word] = _value(path, f"{key}.{word}", value)
    if "state" in properties:
        properties["state"] = canonical_state(kind, properties["state"])
    return Device(
        area=area,
        name=name,
        domain=texts["domain"],
        device_class=texts.get("device_class"),
        floor=texts.get("floor"),
        unit=texts.get("unit"),
        aliases=tuple(_text(path, f"{key}.aliases", alias) for alias in aliases),
        properties=properties,
    )


def _text(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str) or not one_line(value):
        raise HomeFileError(path, key, f"has to be text, not {value!r}")
    return one_line(value)


def _value(path: Path, key: str, value: Any) -> Value:
    if isinstance(value, str):
        return read_value(value)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise HomeFileError(path, key, f"has to be a word, a number or on/off, not {value!r}")
