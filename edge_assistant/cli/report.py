"""A report by name, as a person reads it: one name and value a line, with the unit that the name ends in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_assistant.device.memory import size

_UNITS = ("_tokens_per_s", "_per_s", "_s")
"""Ends of names that are said behind the value, as `_bytes` is wherever it stands in a name."""


def show(report: Mapping[str, Any]) -> None:
    """Print a report; a part of it that is a report itself stands below its name, and what is empty is left out."""
    width = max(map(len, report)) + 2
    for name, value in report.items():
        if isinstance(value, Mapping):
            print(f"{_label(name)}:")
            inner = max(map(len, value), default=0) + 3
            for part, of_it in value.items():
                print(f"  {part + ': ':{inner}}{_value(name, of_it)}")
        elif value not in ("", ()):
            print(f"{_label(name) + ':':{width}}{_value(name, value)}")


def _label(name: str) -> str:
    unit = next((unit for unit in _UNITS if name.endswith(unit)), "")
    return name.removesuffix(unit).replace("_bytes", "").replace("_", " ")


def _value(name: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "not measured", True: "yes", False: "no"}[value]
    if isinstance(value, (list, tuple)):
        return "; ".join(map(str, value))
    if "bytes" in name:
        return size(value) + ("/s" if name.endswith("_per_s") else "")
    if name.endswith(("_tokens_per_s", "_s")):
        return f"{value} {'tokens/s' if name.endswith('_tokens_per_s') else 's'}"
    return f"{value:.1%}" if name.endswith(("_share", "operators")) else str(value)
