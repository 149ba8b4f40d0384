"""Whether what was said can mean what a call would do, where a lock is to open or nothing was asked for.

One tool closes covers and unlocks locks, so a model that hears "shut the front door" or "turn off the front door light"
may well unlock it, and one that hears "yes" moves what comes to its mind. What was said is looked at once more
therefore: words of closing without one of unlocking, "don't open", and a question why or whether unlock nothing;
"turn off" and "turn on" alone open neither a lock nor a garage door, nor does a name that goes on (`front door light`);
a bare "yes" does nothing where the answer before asked nothing. Where the words say neither opening nor unlocking,
those of the turn before count as well ("turn off the lamp", "and the front door"). The words are English; in other
languages nothing is held back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_assistant.errors import CallError
from edge_assistant.home.actions import ENTRANCES
from edge_assistant.home.kinds import KINDS
from edge_assistant.home.resolve import names_of
from edge_assistant.home.values import same
from edge_assistant.home.wording import join, the

if TYPE_CHECKING:
    from edge_assistant.home.actions import Write
    from edge_assistant.home.registry import Device

_UNLOCK = r"(?:unlock|unbolt|unlatch|unbar|unseal|unfasten|undo|releas|revers|revert)"
_UNLOCKING = re.compile(rf"\b{_UNLOCK}")
_OPENING = re.compile(rf"\b(?:open|{_UNLOCK})")
_MOVING = re.compile(rf"\b(?:open|{_UNLOCK}|lift|rais|roll|retract|set|mov(?:e|ing)|put|pull|up\b|per ?cent)|%")
_SWITCHING = re.compile(r"\b(?:turn|switch|power)(?:s|ed|ing)?\b(?: [^ ]+){0,8}? (?:on|off)\b")
_CLOSING = re.compile(r"\b(?:close|closes|closed|closing|shut|shuts|shutting|stop|lock (?:the|my|our|it|up))\b")
_GOING_ON = re.compile(r"\W*(?:and|also|plus|then|same|likewise|(?:what|how) about)\b")
_FORBIDDING = re.compile(rf"\b(?:don['\u2019]?t|do not|never)\s+(?:ever\s+)?(?:open|{_UNLOCK})")
_ASKING = re.compile(
    r"\W*(?:why|who|when|where|which|(?:what|how)(?! about)"
    r"|is(?! it possible)|are(?! you able)|was|were|did|does|has)\b"
)
_BARE = re.compile(r"\W*(?:(?:yes|yeah|yep|no|nope|ok|okay|sure|please|thanks|thank you|hello|hi|hm+)\W*)+")

_OTHER_KINDS = (kind for kind in KINDS if kind.word not in {"lock", *ENTRANCES})
_THINGS = "|".join(
    re.escape(word) + "s?"
    for word in (
        "camera",
        "bell",
        "alarm",
        "sensor",
        *(word for kind in _OTHER_KINDS for word in (kind.word, *kind.called)),
    )
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
    opened = [write.device for write in writes if _opens(write)]
    if held := _held(opened, same(said.text), same(said.before)):
        it, it_is = ("it", "it is") if len(held) == 1 else ("them", "they are")
        word = "unlock" if held[0].domain == "lock" else "open"
        raise CallError(f"I leave {join([the(device.name) for device in held])} as {it_is}. To open {it}, say {word}.")


def _held(opened: Sequence[Device], text: str, before: str) -> list[Device]:
    """Return which of the devices that would open what was said, and before, leaves as they are."""
    locks_stay = _means_another_thing(text)
    if not locks_stay and not _OPENING.search(text):
        locks_stay = _closes(before) or (bool(_GOING_ON.match(text)) and not _OPENING.search(before))
    if locks_stay:
        return [device for device in opened if device.domain == "lock"]
    return [device for device in opened if _switched(device, text) or _goes_on(device, text)]


def _opens(write: Write) -> bool:
    if write.device.domain == "lock":
        return write.value == "unlocked"
    entrance = write.device.domain == "cover" and write.device.device_class in ENTRANCES
    return entrance and write.value not in ("closed", 0)


def _means_another_thing(said: str) -> bool:
    return _closes(said) or _FORBIDDING.search(said) is not None or _ASKING.match(said) is not None


def _closes(said: str) -> bool:
    return _CLOSING.search(said) is not None and _UNLOCKING.search(said) is None


def _switched(device: Device, said: str) -> bool:
    """Return whether what was said turns on or off, and says nothing that would open this one."""
    opening = _OPENING if device.domain == "lock" else _MOVING
    return _SWITCHING.search(said) is not None and opening.search(said) is None


def _goes_on(device: Device, said: str) -> bool:
    """Return whether the device's name was said as the beginning of another thing's: `front door light`."""
    names = "|".join(map(re.escape, sorted(names_of(device), key=len, reverse=True)))
    ends = [said[found.end() :] for found in re.finditer(rf"\b(?:{names})(?!\w)", said)]
    return bool(ends) and all(re.match(rf"\s+(?:{_THINGS})\b", end) for end in ends)
