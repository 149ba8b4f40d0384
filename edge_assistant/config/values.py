"""Kinds of values that a plain type does not tell: what one must look like, and what to say where it does not.

What a validator says ends the sentence "... is X, expected: ...".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

NAME = r"[A-Za-z0-9_.:-]{1,64}"
"""What a name is made of that travels in questions."""


def _host(value: str) -> str:
    if not value or any(mark in value for mark in "/@ "):
        msg = "a host name or address alone; user and password have keys of their own"
        raise ValueError(msg)
    if re.fullmatch(r"[^:]*:\d*", value):
        msg = "a host name or address alone; the port is mqtt.port"
        raise ValueError(msg)
    return value


def _topic(value: str) -> str:
    if not value or value.startswith("/") or value.endswith("/") or any(mark in value for mark in "+#\0"):
        msg = "a topic without wildcards, and without / at its ends"
        raise ValueError(msg)
    return value


def _base(value: str) -> str:
    if value.startswith("$") or value.split("/", maxsplit=1)[0] == "assistant":
        msg = "a topic that is neither the broker's own ($...) nor the assistant's (assistant/...)"
        raise ValueError(msg)
    return _topic(value)


def _level(value: str) -> str:
    if "/" in value:
        msg = "one level of a topic, without /"
        raise ValueError(msg)
    return _topic(value)


def _place(value: str) -> str:
    if not value.replace("_", " ").strip() or not value.isprintable() or any(mark in value for mark in "/+#"):
        msg = "a name on one line, without / + and #"
        raise ValueError(msg)
    return value


def _expanded(value: Path) -> Path:
    try:
        return value.expanduser()
    except RuntimeError as error:
        msg = "a path; nobody here is called as its ~ says"
        raise ValueError(msg) from error


def _name(value: str) -> str:
    if not re.fullmatch(NAME, value):
        msg = "a name of 1 to 64 letters, digits, or any of _ . : -"
        raise ValueError(msg)
    return value


def _temperature(value: float) -> float:
    if 0 < value < 1e-3:
        msg = "0, or at least 0.001"
        raise ValueError(msg)
    return value


File = Annotated[Path, AfterValidator(_expanded)]
Host = Annotated[str, AfterValidator(_host)]
Base = Annotated[str, AfterValidator(_base)]
Place = Annotated[str, AfterValidator(_place)]
Name = Annotated[str, AfterValidator(_name)]
Level = Annotated[str, AfterValidator(_level)]
Temperature = Annotated[float, AfterValidator(_temperature)]
