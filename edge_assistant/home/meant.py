"""Whether what was said can mean what a call would do, where a lock is to open or nothing was asked for.

One tool closes covers and unlocks locks, so a model that hears "shut the front door" or "turn off the front door light"
may well unlock it, and one that hears "yes" moves what comes to its mind. What was said is looked at once more
therefore: words of closing without one of unlocking, "don't open", a question why or whether, and a name that goes on
(`front door light`) unlock nothing; a bare "yes" does nothing where the answer before asked nothing. Where the words
say neither opening nor unlocking, those of the turn before count as well ("close the blinds", "and the front door").
The words are English; in other languages nothing is held back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_assistant.errors import CallError
from edge_assistant.home.kinds import KINDS
from edge_assistant.home.resolve import names_of
from edge_assistant.home.values import same
from edge_assistant.home.wording import join, the

if TYPE_CHECKING:
    from edge_assistant.home.actions import Write
    from edge_assistant.home.registry import Device

_UNLOCK = r"(?:unlock|unbolt|unlatch|unbar|unseal|unfasten|releas)"
_UNLOCKING = re.compile(rf"\b{_UNLOCK}")
_OPENING = re.compile(rf"\b(?:open|{_UNLOCK})")
_CLOSING = re.compile(r"\b(?:close|closes|closed|closing|shut|shuts|shutting)\b")
_FORBIDDING = re.compile(rf"\b(?:don['\u2019]?t|do not|never)\s+(?:ever\s+)?(?:open|{_UNLOCK})")
_ASKING = re.compile(r"\W*(?:why|who|when|where|which|(?:what|how)(?!\s+about)|is|are|was|were|did|does|has)\b")
_BARE = re.compile(r"\W*(?:(?:yes|yeah|yep|no|nope|ok|okay|sure|please|thanks|thank you|hello|hi|hm+)\W*)+")

_ENTRANCES = {"lock", "door", "gate", "garage"}
_THINGS = "|".join(
    re.escape(word) + "s?"
    for kind in KINDS
    if kind.word not in _ENTRANCES
    for word in (kind.word, *kind.called, "camera", "bell", "alarm", "sensor")
)


@dataclass(frozen=True, slots=True)
class Said:
    """What was said, and the turn before in that conversation: the question, and the answer to it."""

    text: str
    before: str = ""
    answer: str = ""


def check_meant(said: Said, writes: Sequence[Write]) -> None:
    """Raise CallError, which says how to ask for it, where what was said cannot mean these writes."""
    if _BARE.fullmatch(said.text.casefold()) and not said.answer.endswith("?"):
        raise CallError("I asked nothing. Say what to do.")
    locks = [write.device for write in writes if write.device.domain == "lock" and write.value == "unlocked"]
    text = same(said.text) if _OPENING.search(same(said.text)) else same(f"{said.before} {said.text}")
    if held := locks if _means_another_thing(text) else [lock for lock in locks if _goes_on(lock, same(said.text))]:
        it, it_is = ("it", "it is") if len(held) == 1 else ("them", "they are")
        raise CallError(f"I leave {join([the(lock.name) for lock in held])} as {it_is}. To open {it}, say unlock.")


def _means_another_thing(said: str) -> bool:
    closing = _CLOSING.search(said) is not None and _UNLOCKING.search(said) is None
    return closing or _FORBIDDING.search(said) is not None or _ASKING.match(said) is not None


def _goes_on(lock: Device, said: str) -> bool:
    """Return whether the lock's name was said as the beginning of another thing's: `front door light`."""
    names = "|".join(map(re.escape, sorted(names_of(lock), key=len, reverse=True)))
    ends = [said[found.end() :] for found in re.finditer(rf"\b(?:{names})(?!\w)", said)]
    return bool(ends) and all(re.match(rf"\s+(?:{_THINGS})\b", end) for end in ends)
