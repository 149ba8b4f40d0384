"""What the runtime itself says of the home's states, by templates.

The model picks what is asked for (`HassGetState {"device_class": "window", "state": "open"}`); the sentence comes
from here, so that a count is right and a list complete. One sentence serves which, how many, any and all alike:

    2 of 5 windows are open: the kitchen window and the bath window.
    None of the 5 windows is open.
    Of 3 locks, 2 are locked (the front door and the gate) and 1 is unlocked (the shed).
    The 2 temperature sensors report 22 °C on average: the bath 23 °C and the hall 21 °C.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edge_assistant.home.kinds import UNITS, Kind
from edge_assistant.home.registry import Device, as_words
from edge_assistant.home.values import canonical_state, is_lost, same

MOST_CHOICES = 3
"""Devices that a question back lists; with more it asks by the word alone."""

_WHOLE_FROM = 1000
"""From here on a sum or mean is said without decimals; four digits do below."""

_SENSES = {"motion": "motion", "occupancy": "somebody", "smoke": "smoke", "gas": "gas"}
"""Kinds that detect what their word names."""

_NOUNS = {
    "switch": ("switch", "switches"),
    "climate": ("thermostat", "thermostats"),
    "garage": ("garage door", "garage doors"),
    "todo": ("list", "lists"),
    "person": ("person", "people"),
}


def sentence(text: str) -> str:
    """Return the text with a capital first and a full stop last."""
    return f"{text[:1].upper()}{text[1:]}."


def join(parts: Sequence[str], word: str = "and") -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"


def the(name: str) -> str:
    """Return a name with its article, where it takes one: `Anna's lamp` does not."""
    first = name.split(" ", 1)[0]
    return name if first.endswith(("'s", "\u2019s")) or first.casefold() in {"the", "my", "our"} else f"the {name}"


def on_floor(floor: str) -> str:
    """Return where something on that floor is: `upstairs`, `in the basement`, `on the ground floor`."""
    place = same(floor)
    if place in {"upstairs", "downstairs"}:
        return floor
    return f"{'in' if place in {'basement', 'cellar', 'attic'} else 'on'} {the(floor)}"


def which(devices: Sequence[Device], said: str) -> str:
    """Ask back where `said` may mean any of several devices: by their names where they are few enough to say."""
    if len(devices) > MOST_CHOICES:
        return f"Which {said} do you mean?"
    return f"Which one: {join([f'{the(device.name)} in {the(device.area)}' for device in devices], 'or')}?"


def phrase(device: Device, home: Iterable[Device]) -> str:
    """Return how a device is spoken of: by its name, with its area where the name alone would not tell."""
    if device.domain == "person":
        return device.name
    if same(device.area) in same(device.name):
        return the(device.name)
    if same(device.name) == device.kind.word:
        return the(f"{device.area} {_noun([device])}")
    name = same(device.name)
    shared = sum(same(other.name) == name for other in home) > 1
    return f"{the(device.name)} in {the(device.area)}" if shared else the(device.name)


def report(device: Device, home: Iterable[Device]) -> str:
    """Return all that one device reports, such as `the desk lamp is on, brightness 40 %`."""
    rest = [
        f"{name} {as_words(value)}{' ' + UNITS[name] if name in UNITS else ''}"
        for name, value in device.properties.items()
        if name != "state"
    ]
    if device.state is None and rest:
        return f"{phrase(device, home)} reports {join(rest)}"
    return ", ".join([f"{phrase(device, home)} {_is(device, 1)}", *rest])


def states(devices: Sequence[Device], home: Iterable[Device], wanted: str | None = None) -> str:
    """Answer a HassGetState in a sentence or two.

    `devices` are those that its slots mean (at least one), `home` all there are, `wanted` the state asked for.
    """
    home = tuple(home)
    if wanted is not None:
        devices = _candidates(devices, wanted)
    if len(devices) == 1:
        return sentence(report(devices[0], home))
    silent = [device for device in devices if device.state is None and device.kind.states]
    lost = [device for device in devices if is_lost(device.state) and _is_aside(device, wanted)]
    heard = [device for device in devices if device not in silent and device not in lost]
    parts = [_said(heard, home, wanted)] if heard else []
    parts += [sentence(f"{phrase(device, home)} is {device.state}") for device in lost]
    if silent:
        verb = "has" if len(silent) == 1 else "have"
        parts.append(sentence(f"{join([phrase(device, home) for device in silent])} {verb} not reported yet"))
    return " ".join(parts)


def _is_aside(device: Device, wanted: str | None) -> bool:
    """Return whether a lost device is spoken of by itself: where it would count as not open, or as a number."""
    return not device.kind.states if wanted is None else not is_lost(wanted)


def _said(devices: Sequence[Device], home: Sequence[Device], wanted: str | None) -> str:
    if len(devices) == 1:
        return sentence(report(devices[0], home))
    if wanted is not None:
        return _matching(devices, home, wanted)
    if len({(device.kind, device.unit or device.kind.unit) for device in devices}) > 1:
        return sentence("; ".join(report(device, home) for device in devices))
    if all(device.state is None for device in devices):
        return sentence(f"there are {_count(devices)}: {_names(devices, home)}")
    if not devices[0].kind.states and all(_number(device) is not None for device in devices):
        return _measured(devices, home)
    return _by_state(devices, home)


def _matching(devices: Sequence[Device], home: Sequence[Device], wanted: str) -> str:
    """Say which of several devices are in the state asked for."""
    yes = [device for device in devices if _is_in(device, wanted)]
    no = [device for device in devices if device not in yes]
    if not yes:
        return sentence(f"none of the {_count(devices)} {_is(devices[0], 1, wanted)}")
    if not no:
        return _all(devices, home, wanted if len({same(device.state or "") for device in devices}) > 1 else None)
    but = f", but not {_names(no, home, 'or')}" if len(no) <= min(3, len(yes) - 1) else ""
    return sentence(f"{len(yes)} of {_count(devices)} {_is(yes[0], len(yes), wanted)}: {_names(yes, home)}{but}")


def _all(devices: Sequence[Device], home: Sequence[Device], state: str | None = None) -> str:
    """Say that all are in one state, by default the first one's own."""
    count = f"both {_noun(devices)}" if len(devices) == 2 else f"all {_count(devices)}"
    return sentence(f"{count} {_is(devices[0], len(devices), state)}: {_names(devices, home)}")


def _by_state(devices: Sequence[Device], home: Sequence[Device]) -> str:
    """Say how many of one kind are in which state."""
    groups: dict[str, list[Device]] = {}
    for device in devices:
        groups.setdefault(device.state or "", []).append(device)
    if len(groups) == 1:
        return _all(devices, home)
    parts = [f"{len(group)} {_is(group[0], len(group))} ({_names(group, home)})" for group in groups.values()]
    return sentence(f"of {_count(devices)}, {join(parts)}")


def _measured(devices: Sequence[Device], home: Sequence[Device]) -> str:
    """Say what several of one kind measure, the highest first, with the mean (of a list of things: the sum)."""
    values = {id(device): _number(device) or 0.0 for device in devices}
    ranked = sorted(devices, key=lambda device: -values[id(device)])
    each = [f"{phrase(device, home)} {_with_unit(device)}" for device in ranked]
    total = sum(values.values())
    unit = ranked[0].unit or ranked[0].kind.unit
    adds_up = ranked[0].kind.word in {"power", "energy", "todo"}
    value = total if adds_up else total / len(ranked)
    figure = f"{f'{value:.0f}' if abs(value) >= _WHOLE_FROM else f'{value:.4g}'}{' ' + unit if unit else ''}"
    how = "in all" if adds_up else "on average"
    return sentence(f"the {_count(ranked)} report {figure} {how}: {join(each)}")


def _names(devices: Sequence[Device], home: Sequence[Device], word: str = "and") -> str:
    return join([phrase(device, home) for device in devices], word)


def _noun(devices: Sequence[Device]) -> str:
    """Return what to call these devices, in the singular or the plural as they are."""
    if len({device.kind for device in devices}) > 1:
        return "devices"
    return noun(devices[0].kind, len(devices))


def noun(kind: Kind, count: int) -> str:
    """Return the word for that many devices of a kind: `motion sensor`, `thermostats`."""
    word = f"{kind.word} sensor" if kind.domain == "sensor" or kind.word in {*_SENSES, "leak"} else kind.word
    one, many = _NOUNS.get(kind.word, (word, f"{word}s"))
    return one if count == 1 else many


def _count(devices: Sequence[Device]) -> str:
    return f"{len(devices)} {_noun(devices)}"


def _is(device: Device, count: int, state: str | None = None) -> str:
    """Return the verb and the state, by default the device's own: `is on`, `are open`, `detects motion`."""
    kind, plural = device.kind, count > 1
    state = device.state if state is None else as_words(canonical_state(kind, state))
    if state is None:
        return ("have" if plural else "has") + " not reported yet"
    if kind.domain == "todo":
        return f"{'have' if plural else 'has'} {_with_unit(device)}"
    if state == "detected":
        return f"{'detect' if plural else 'detects'} {_SENSES.get(kind.word, kind.word)}"
    verb = "are" if plural else "is"
    if kind.states:
        mode = kind.domain == "climate" and state in {"heat", "cool", "auto"}
        return f"{verb} set to {state}" if mode else f"{verb} {state}"
    return f"{'report' if plural else 'reports'} {_with_unit(device)}"


def _with_unit(device: Device) -> str:
    unit = None if is_lost(device.state) else device.unit or device.kind.unit
    return f"{device.state} {unit}" if unit else str(device.state)


def _number(device: Device) -> float | None:
    value = device.properties.get("state")
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _candidates(devices: Sequence[Device], wanted: str) -> Sequence[Device]:
    """Return the devices that can be in the state at all: a window is never `locked`, and among lamps never `on`."""
    able = [device for device in devices if _can_be(device, wanted)]
    literal = [device for device in able if canonical_state(device.kind, wanted) == same(wanted)]
    return literal or able or devices


def _can_be(device: Device, wanted: str) -> bool:
    states = device.kind.states
    if not states:
        return _is_in(device, wanted)
    return canonical_state(device.kind, wanted) in states or (same(wanted) == "on" and "off" in states)


def _is_in(device: Device, wanted: str) -> bool:
    """Return whether a device is in the state: `on` is any state but off where a device has more than the two."""
    if device.state is None:
        return False
    now = same(device.state)
    if same(wanted) == "on" and "off" in device.kind.states and "on" not in device.kind.states:
        return now != "off" and not is_lost(now)
    return now == same(as_words(canonical_state(device.kind, wanted)))
