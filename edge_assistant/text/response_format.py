"""The JSON schema that an answer is to fit, as a request or a file gives it.

    "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object", ...}}}

is how OpenAI's interface names it (`name`, `description` and `strict` beside the schema say nothing more here: answers
are always held to it). Whether a schema can be held to is the grammar's to say (`engine.grammar`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edge_assistant.errors import SchemaFileError

MAX_SCHEMA_BYTES: Final = 16 << 10
"""Of a schema as JSON: a grammar is compiled of it while somebody waits."""
_NAMED: Final = {"name": str, "description": str, "strict": bool, "schema": object}


def read_response_format(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema that a request's `response_format` holds; ValueError says what is wrong with it."""
    if document.get("type") != "json_schema" or document.keys() != {"type", "json_schema"}:
        raise ValueError('response_format has to be {"type": "json_schema", "json_schema": {"schema": {...}}}')
    named = document["json_schema"]
    if not isinstance(named, dict) or "schema" not in named:
        raise ValueError("response_format.json_schema has to be an object with a schema")
    for key, value in named.items():
        if key not in _NAMED or not isinstance(value, _NAMED[key]):
            raise ValueError(
                f"response_format.json_schema.{key[:40]!r} is none of {', '.join(_NAMED)}, or of another type"
            )
    return _bounded(named["schema"])


def write_response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `response_format` that `read_response_format` reads."""
    return {"type": "json_schema", "json_schema": {"schema": schema}}


def read_schema_file(path: Path) -> dict[str, Any]:
    """Return the JSON schema that a file holds.

    Raises:
        SchemaFileError: It cannot be read, is no JSON object, or is too long.
    """
    try:
        return _bounded(json.loads(path.read_bytes()))
    except OSError as error:
        raise SchemaFileError(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise SchemaFileError(path, str(error)) from error


def _bounded(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, dict):
        raise ValueError("the schema is not an object")  # noqa: TRY004 - as all that is wrong with it
    try:
        size = len(json.dumps(schema, ensure_ascii=False).encode())
    except RecursionError as error:
        raise ValueError("the schema is nested too deep") from error
    except UnicodeEncodeError as error:
        raise ValueError("the schema holds half a surrogate pair") from error
    if size > MAX_SCHEMA_BYTES:
        raise ValueError(f"the schema has {size} bytes as JSON, at most {MAX_SCHEMA_BYTES} are read")
    return schema
