"""Which devices a prompt shows: what the question mentions, then what the turns before did, then the home's first.

Every device costs a board time, for it is read before the answer begins, and each one is another to mistake for the
one that is meant. So a prompt shows a few of a large home (`assistant.prompt_devices`), but all that the question
mentions by name or alias, by area or by kind; commands and HassGetState reach the others all the same. A device that
shares its name with another goes out where the question says the other's area too ("the lamp in the hall").

What goes in is shown in the home's order, so that the same home makes the same prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edge_assistant.home.registry import Device
from edge_assistant.home.resolve import names_of
from edge_assistant.home.values import same

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Relevant:
    """The devices that a prompt shows, the most relevant first; the question mentions so many of them."""

    devices: tuple[Device, ...]
    mentioned: int


def relevant(devices: Iterable[Device], question: str, earlier: str, most: int) -> Relevant:
    """Return what to show of a home: all that is mentioned, with it up to `most`; `earlier` is what was said before."""
    said, before = _said(question), _said(earlier)
    scored = [(_score(device, said), _score(device, before), device) for device in _not_ruled_out(devices, said)]
    scored.sort(key=lambda each: (-each[0], -each[1]))
    mentioned = sum(score >= 1 for score, _, _ in scored)
    return Relevant(tuple(device for _, _, device in scored[: max(most, mentioned)]), mentioned)


def in_home_order(devices: Iterable[Device], chosen: Iterable[Device]) -> list[Device]:
    """Return those devices that were chosen, in the order of the home."""
    shown = {id(device) for device in chosen}
    return [device for device in devices if id(device) in shown]


def as_many_as_fit(devices: Sequence[Device], fits: Callable[[Sequence[Device]], bool]) -> int:
    """Return how many of the first devices fit, by bisection: `fits` must hold for fewer where it holds for more."""
    if fits(devices):
        return len(devices)
    low, high = 0, len(devices)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(devices[:middle]) else (low, middle)
    return low


def _not_ruled_out(devices: Iterable[Device], said: set[str]) -> list[Device]:
    """Return the devices without those whose name was said together with the area of another one of that name."""
    listed = list(devices)
    there = {id(device) for device in listed if _share(same(device.area), said) == 1}
    named = {same(device.name) for device in listed if id(device) in there and _share(same(device.name), said) == 1}
    return [device for device in listed if id(device) in there or same(device.name) not in named]


def _score(device: Device, said: set[str]) -> float:
    """Return the best share of a name's words that were said, and weigh name over area over kind."""
    name = max(_share(name, said) for name in names_of(device))
    return 4 * name + 2 * (_share(same(device.area), said) == 1) + (_share(device.kind.word, said) == 1)


def _said(text: str) -> set[str]:
    return {_stem(word) for word in _WORD.findall(same(text))}


def _share(name: str, said: set[str]) -> float:
    words = [_stem(word) for word in _WORD.findall(name)]
    return sum(word in said for word in words) / len(words) if words else 0.0


def _stem(word: str) -> str:
    """Return the word without a plural's ending, so that `lights` mentions a light."""
    if word.endswith(("shes", "ches")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
