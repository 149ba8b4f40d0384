"""The variables of the environment: EDGE_ASSISTANT_<SECTION>__<KEY>, or EDGE_ASSISTANT_<SECTION> with JSON."""

from __future__ import annotations

import json
import os

ENV_PREFIX = "EDGE_ASSISTANT_"


def environment() -> tuple[str, ...]:
    """Return the names of the environment's variables that set something."""
    return tuple(variables())


def variable_name(section: str, key: str) -> str:
    """Return the name of the variable that sets a key."""
    return f"{ENV_PREFIX}{section}__{key}".upper()


def variables() -> dict[str, str]:
    """Return the environment's variables that set something, with the keys they set: `engine.threads`."""
    ours = (name for name, value in os.environ.items() if name.upper().startswith(ENV_PREFIX) and value)
    return {name: ".".join(name[len(ENV_PREFIX) :].lower().split("__")[:2]) for name in ours}


def variable_of(section: str, key: str | None) -> str | None:
    """Return the variable that sets a key by itself or in its section's JSON, or the whole section; None for none."""
    for variable, dotted in variables().items():
        if dotted == f"{section}.{key}":
            return variable
        if dotted == section and (key is None or key in (json.loads(os.environ[variable]) or {})):
            return variable
    return None


def value_of(variable: str) -> str:
    """Return what a variable is set to."""
    return os.environ[variable]
