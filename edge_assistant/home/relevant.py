"""Which devices go into the prompt when the model's context cannot hold all of them.

What the question mentions goes first: a device by its name or alias, then its area, then its kind. The rest
follows in the home's order until the prompt is full; what goes in is shown in the home's order again, so that
the same home makes the same prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from edge_assistant.home.registry import Device
from edge_assistant.home.resolve import names_of
from edge_assistant.home.values import same

_WORD = re.compile(r"\w+")


def ranked(devices: Iterable[Device], question: str) -> tuple[list[Device], int]:
    """Return the devices, the most relevant first, and how many of them the question mentions."""
    said = {_stem(word) for word in _WORD.findall(same(question))}
    scored = [(_score(device, said), device) for device in devices]
    mentioned = sum(score >= 1 for score, _ in scored)
    return [device for _, device in sorted(scored, key=lambda pair: -pair[0])], mentioned


def as_many_as_fit(devices: Sequence[Device], fits: Callable[[Sequence[Device]], bool]) -> int:
    """Return how many of the first devices fit, by bisection: `fits` must hold for fewer where it holds for more."""
    if fits(devices):
        return len(devices)
    low, high = 0, len(devices)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(devices[:middle]) else (low, middle)
    return low


def _score(device: Device, said: set[str]) -> float:
    """Return the best share of a name's words that were said, and weigh name over area over kind."""
    name = max(_share(name, said) for name in names_of(device))
    return 4 * name + 2 * (_share(same(device.area), said) == 1) + (_share(device.kind.word, said) == 1)


def _share(name: str, said: set[str]) -> float:
    words = [_stem(word) for word in _WORD.findall(name)]
    return sum(word in said for word in words) / len(words) if words else 0.0


def _stem(word: str) -> str:
    """Return the word without a plural's ending, so that `lights` mentions a light."""
    if word.endswith(("shes", "ches")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
