"""What pydantic found wrong, as an error that names the file or the variable, the key, and what is expected.

The sentence itself is made by the error's class in `errors.py`; what is expected says pydantic, or `values.py`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_assistant.config.sections import SECTIONS, DeviceSettings
from edge_assistant.config.unknown import nearest
from edge_assistant.config.variables import value_of, variable_of, variables
from edge_assistant.errors import InvalidValueError, UnknownKeyError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_settings import SettingsError


def explain(error: ValidationError, path: Path | None) -> UnknownKeyError | InvalidValueError:
    """Turn pydantic's first finding into an error that names its source."""
    first = error.errors()[0]
    loc = [str(part) for part in first["loc"] if part != "[key]"]  # pydantic's word for what is wrong with a name
    key, section = ".".join(loc), loc[0]
    source = variable_of(section, loc[1] if len(loc) > 1 else None) or str(path or "the environment")
    if first["type"] == "extra_forbidden":
        table, _, _ = key.rpartition(".")
        model = SECTIONS[section] if table == section else DeviceSettings
        return UnknownKeyError(source, key, nearest(key, [f"{table}.{name}" for name in model.model_fields]))
    if first["type"] == "missing":
        return InvalidValueError(source, key, None, "a value")
    expected = "a table" if first["type"] == "model_type" else first["msg"].removeprefix("Value error, ")
    return InvalidValueError(source, key, _without_login(first["input"]), expected.removeprefix("Input should be "))


def explain_json(error: SettingsError) -> InvalidValueError:
    """Find the variable whose list or table is not JSON: pydantic-settings names only its section."""
    for variable, dotted in variables().items():
        section, _, key = dotted.partition(".")
        if not key or isinstance(SECTIONS[section].model_fields[key].default, (tuple, dict)):
            try:
                json.loads(value_of(variable))
            except json.JSONDecodeError:
                return InvalidValueError(variable, dotted, value_of(variable), 'JSON, such as ["a", "b"] or {"a": 1}')
    return InvalidValueError("the environment", "a value", None, str(error))


def _without_login(value: Any) -> Any:
    """Return a value as it may be shown: of an address with user and password the rest."""
    return re.sub(r"^(\w+://)?.*@", r"\1***@", value) if isinstance(value, str) else value
