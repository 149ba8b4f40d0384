"""TOML: a file read, a value written."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_assistant.errors import ConfigFileError


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a file holds; ConfigFileError where it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigFileError(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, and what is nested too deep, as well
        raise ConfigFileError(path, f"not TOML: {error}") from error


def to_toml(value: Any) -> str:
    """Write a value as TOML on one line; JSON's strings, numbers and lists are TOML's too."""
    if isinstance(value, Mapping):
        pairs = (f"{to_toml(key)} = {to_toml(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # legal in JSON, not in TOML
