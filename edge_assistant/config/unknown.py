"""Keys that do not exist, and which one was likely meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from edge_assistant.config.sections import SECTIONS
from edge_assistant.errors import UnknownKeyError


def dotted(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys that a file sets: `engine.threads`; what is no section by its own name."""
    for section, values in table.items():
        if isinstance(values, Mapping) and section in SECTIONS:
            yield from (f"{section}.{key}" for key in values)
        else:
            yield section


def refuse_unknown(keys: Iterable[str], source: str) -> None:
    """Raise UnknownKeyError for the first key that is neither a setting nor a section; `source` is where it stands."""
    known = [f"{section}.{key}" for section in SECTIONS for key in SECTIONS[section].model_fields]
    for key in keys:
        if key not in known and key not in SECTIONS:
            raise UnknownKeyError(source, key, nearest(key, known if "." in key else [*SECTIONS, *known]))


def nearest(key: str, known: list[str]) -> str | None:
    """Return the known key that was most likely meant: the same word elsewhere, else the most alike, in any case."""
    key, names = key.lower(), {name.lower(): name for name in known}
    same_word = [name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2]]
    return names.get(next(iter(same_word or difflib.get_close_matches(key, names, n=1)), ""))
