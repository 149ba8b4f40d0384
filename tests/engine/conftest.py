"""Random JSON schemas, of the kinds of keywords that people's schemas have; chance that is the same each time."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

_FORMATS = ("date", "time", "date-time", "email", "ipv4", "uuid")
_PATTERNS = ("^[a-z]+$", "^[A-Z]{2}-[0-9]{3}$", "^(on|off)$", r"^\d{1,3}(\.\d{3})*$", "^[^\\s]{1,8}$")
_NAMES = ("id", "name", "größe", "on/off", "a b", "items", "state", 'quo"te', "x-1", "Ω", "value", "enabled", "_n")


@pytest.fixture
def one_chance(monkeypatch):
    """Let all answers that are asked for without a seed draw from one: so they can be compared."""
    monkeypatch.setattr("edge_assistant.engine.sampling.secrets.randbits", lambda bits: 7)


@pytest.fixture(scope="session")
def random_schema() -> Callable[[Random], dict[str, Any]]:
    """Return the function that makes one."""
    return _schema


def _schema(rng: Random, depth: int = 3) -> dict[str, Any]:
    """Return a schema that some document fits."""
    root = _value(rng, depth)
    if rng.random() < 0.2:
        return {
            "$defs": {"part": _value(rng, 1), "node": _tree()},
            "type": "object",
            "properties": {"whole": root, "part": {"$ref": "#/$defs/part"}, "tree": {"$ref": "#/$defs/node"}},
            "required": ["part"],
            "additionalProperties": False,
        }
    return root


def _tree() -> dict[str, Any]:
    children = {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}
    return {
        "type": "object",
        "properties": {"leaf": {"type": "boolean"}, "children": children},
        "required": ["leaf"],
        "additionalProperties": False,
    }


def _value(rng: Random, depth: int) -> dict[str, Any]:
    kinds = [_string, _string, _integer, _number, _fixed, _simple]
    kinds += [_object, _object, _object, _array, _either] if depth > 0 else []
    return rng.choice(kinds)(rng, depth)


def _string(rng: Random, _depth: int) -> dict[str, Any]:
    roll = rng.random()
    if roll < 0.2:
        return {"type": "string", "pattern": rng.choice(_PATTERNS)}
    if roll < 0.35:
        return {"type": "string", "format": rng.choice(_FORMATS)}
    if roll < 0.7:
        least = rng.randint(0, 3)
        return {"type": "string", "minLength": least, "maxLength": least + rng.randint(0, 8)}
    return {"type": "string"}


def _integer(rng: Random, _depth: int) -> dict[str, Any]:
    low = rng.randint(-1000, 1000)
    bounds = rng.choice(
        (
            {},
            {"minimum": low},
            {"maximum": low},
            {"minimum": low, "maximum": low + rng.randint(0, 500)},
            {"exclusiveMinimum": low, "exclusiveMaximum": low + 2},
            {"minimum": 0, "maximum": 100, "multipleOf": rng.choice((2, 5, 10))},
        )
    )
    return {"type": "integer", **bounds}


def _number(rng: Random, _depth: int) -> dict[str, Any]:
    low = rng.randint(-20, 20) / 2
    return {"type": "number", **rng.choice(({}, {"minimum": low}, {"minimum": low, "maximum": low + 7.5}))}


def _fixed(rng: Random, _depth: int) -> dict[str, Any]:
    values = ["on", "off", 3, -1.5, None, True, {"a": [1]}, [], "ä\n\"'"]
    return rng.choice(({"const": rng.choice(values)}, {"enum": rng.sample(values, rng.randint(1, 5))}))


def _simple(rng: Random, _depth: int) -> dict[str, Any]:
    return rng.choice(
        ({"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}, {"type": ["integer", "boolean"]})
    )


def _object(rng: Random, depth: int) -> dict[str, Any]:
    names = rng.sample(_NAMES, rng.randint(0, 5))
    made: dict[str, Any] = {
        "type": "object",
        "properties": {name: _value(rng, depth - 1) for name in names},
        "required": [name for name in names if rng.random() < 0.6],
        "additionalProperties": rng.choice((False, False, False, _value(rng, 0))),
    }
    if rng.random() < 0.3:
        made |= {"title": "Thing", "description": "What it is for."}
    return made


def _array(rng: Random, depth: int) -> dict[str, Any]:
    least = rng.randint(0, 2)
    made: dict[str, Any] = {"type": "array", "items": _value(rng, depth - 1), "minItems": least}
    if rng.random() < 0.2:
        made["prefixItems"] = [_value(rng, 0), _value(rng, 0)]
    return made | {"maxItems": max(least, len(made.get("prefixItems", ()))) + rng.randint(0, 3)}


def _either(rng: Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [_value(rng, depth - 1) for _ in range(rng.randint(2, 3))]}
