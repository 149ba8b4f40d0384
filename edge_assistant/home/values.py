"""What arrives from outside (a topic's payload, a file), made into what the home keeps.

States stand in the prompt, so a text that is no plain word must not be able to look like another device:
it becomes one line of printable characters, of bounded length.
"""

from __future__ import annotations

import math
import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

from edge_assistant.home.registry import as_words

if TYPE_CHECKING:
    from edge_assistant.home.kinds import Kind
    from edge_assistant.home.registry import Value

MAX_TEXT = 128
"""Characters that a state or a name may have; a longer one is cut."""

_NUMBER = re.compile(r"[-+]?\d{1,18}(\.\d{1,18})?")
_BOOLEANS = {"true": True, "false": False}
_SPELLINGS = 1 << 14
"""Texts whose spelling is kept: an answer about a large home compares each name with every other."""
_LOST = frozenset({"unavailable", "unknown"})
_SAME_STATE = {("person", "not home"): "away"}


def one_line(text: str) -> str:
    """Return the text without control characters, on one line, cut to MAX_TEXT characters."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:MAX_TEXT].rstrip()


def read_value(text: str) -> Value:
    """Return the number, the truth value or the words that a payload holds; "" where it holds nothing."""
    words = one_line(text)
    if words.lower() in _BOOLEANS:
        return _BOOLEANS[words.lower()]
    if _NUMBER.fullmatch(words):
        return float(words) if "." in words else int(words)
    return words


def canonical_state(kind: Kind, value: Value) -> Value:
    """Return a state in the kind's own words: `ON` is on, and a window that is `on` is open, as in Home Assistant."""
    if isinstance(value, float) and not math.isfinite(value):
        return as_words(value)
    if not kind.states:
        return value
    word = same(as_words(value))
    if word in kind.states:
        return word
    if kind.domain == "binary_sensor" and word in {"on", "off"}:
        return kind.states[word == "off"]
    return _SAME_STATE.get((kind.domain, word), value)


def is_lost(state: str | None) -> bool:
    """Return whether a state is Home Assistant's word for a device that cannot be reached: it says nothing of it."""
    return state is not None and same(state) in _LOST


@lru_cache(_SPELLINGS)
def same(text: str) -> str:
    """Return what two spellings of one name share: case, underscores, spaces and a leading "the" do not count.

    Nor does whether an umlaut is one character or a letter and its dots, as some systems write it.
    """
    folded = unicodedata.normalize("NFD", text.replace("_", " ")).casefold()
    words = unicodedata.normalize("NFC", folded).split()
    return " ".join(words[1:] if len(words) > 1 and words[0] == "the" else words)
