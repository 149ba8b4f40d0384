"""Whether what was said can mean that a lock is to open.

One tool closes covers and unlocks locks, so a model that hears "shut the front door" may well unlock it. What was said
is looked at once more therefore: words of closing without one of unlocking, "don't open", and a question why or whether
unlock nothing. The words are English; in other languages nothing is held back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_assistant.errors import CallError
from edge_assistant.home.wording import join, the

if TYPE_CHECKING:
    from edge_assistant.home.actions import Write

_UNLOCK = r"(?:unlock|unbolt|unlatch|unbar|unseal|unfasten|releas)"
_UNLOCKING = re.compile(rf"\b{_UNLOCK}")
_CLOSING = re.compile(r"\b(?:close|closes|closed|closing|shut|shuts|shutting)\b")
_FORBIDDING = re.compile(rf"\b(?:don['\u2019]?t|do not|never)\s+(?:ever\s+)?(?:open|{_UNLOCK})")
_ASKING = re.compile(r"\W*(?:why|who|when|where|which|(?:what|how)(?!\s+about)|is|are|was|were|did|does|has)\b")


def check_meant(said: str, writes: Sequence[Write]) -> None:
    """Raise CallError, which says how to ask for it, where a lock would open and what was said means another thing."""
    locks = [write.device for write in writes if write.device.domain == "lock" and write.value == "unlocked"]
    if locks and _means_another_thing(said.casefold()):
        one = len(locks) == 1
        names = join([the(device.name) for device in locks])
        raise CallError(
            f"I leave {names} as {'it is' if one else 'they are'}. To open {'it' if one else 'them'}, say unlock."
        )


def _means_another_thing(said: str) -> bool:
    closing = _CLOSING.search(said) is not None and _UNLOCKING.search(said) is None
    return closing or _FORBIDDING.search(said) is not None or _ASKING.match(said) is not None
