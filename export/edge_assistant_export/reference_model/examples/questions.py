"""Questions: about one device in a sentence, about more than one by HassGetState."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_assistant.home.kinds import UNITS
from edge_assistant.home.registry import as_words
from edge_assistant.home.wording import the
from edge_assistant_export.reference_model import targets
from edge_assistant_export.reference_model.examples.base import Example, NoSuchQuestionError, Speaker, calls, text
from edge_assistant_export.reference_model.examples.commands import pick
from edge_assistant_export.reference_model.lexicon.words import KIND_WORDS, SAID_STATES

if TYPE_CHECKING:
    from edge_assistant.home.registry import Device
    from edge_assistant_export.reference_model.homes import House

_SENSES = {"motion": "motion", "occupancy": "somebody", "smoke": "smoke", "gas": "gas"}
_GROUP = {
    "outlet": "switch",
    "door": "opening",
    "window": "opening",
    "motion": "detector",
    "occupancy": "detector",
    "smoke": "detector",
    "gas": "detector",
}
_SILENT = "has not reported yet"


def predicate(device: Device) -> str:
    """Return what a device does or is: `is on`, `detects motion`, `reads 21.5 °C`, `is set to heat`."""
    kind, state = device.kind, device.state
    if state is None:
        return _SILENT
    unit = device.unit or kind.unit
    if kind.domain == "todo":
        return f"has {state} {unit}"
    if not kind.states:
        return f"reads {state} {unit}" if unit else f"reads {state}"
    if state == "detected":
        return f"detects {_SENSES[kind.word]}"
    return f"is set to {state}" if kind.domain == "climate" and state != "off" else f"is {state}"


def subject(device: Device, *, with_area: bool) -> str:
    """Return the device as an answer names it: with its area where the question named it."""
    if device.domain == "person":
        return device.name
    return f"{the(device.name)} in {the(device.area)}" if with_area else the(device.name)


def said_states(device: Device) -> dict[str, tuple[str, ...]]:
    """Return the words by which each state of the device may be asked for."""
    kind = device.kind
    group = "cover" if kind.domain == "cover" else _GROUP.get(kind.word, kind.word)
    return SAID_STATES.get(group, {})


def is_state(speaker: Speaker, house: House) -> Example:
    """A question for yes or no; the state alone answers it, which unlike "yes, it is unlocked" leaves no doubt."""
    rng = speaker.rng
    device = pick(speaker, [device for device in house.devices if said_states(device)])
    target = targets.named(rng, house, device, door=True)
    ways = rng.choice(list(said_states(device).values()))
    intent = "are_state" if device.name.lower().endswith("s") and rng.random() < 0.6 else "is_state"
    question, pattern = speaker.say(intent, question=True, names=target.names, d=target.text, s=rng.choice(ways))
    who = subject(device, with_area="area" in target.arguments)
    return Example("yes-no", question, text(f"{who} {predicate(device)}."), (pattern,))


def state(speaker: Speaker, house: House) -> Example:
    """An open question about one device's state."""
    rng = speaker.rng
    device = pick(speaker, [device for device in house.devices if device.kind.states and device.domain != "person"])
    target = targets.named(rng, house, device)
    intent = "state"
    if rng.random() < 0.2:
        either = {
            "light": "either",
            "switch": "either",
            "fan": "either",
            "cover": "either_open",
            "lock": "either_locked",
        }
        opening = device.kind.word in ("door", "window")
        intent = "either_open" if opening else either.get(device.domain, "state")
    question, pattern = speaker.say(intent, question=True, names=target.names, d=target.text)
    who = subject(device, with_area="area" in target.arguments)
    return Example("state", question, text(f"{who} {predicate(device)}."), (pattern,))


def person(speaker: Speaker, house: House) -> Example:
    """Whether somebody is at home, or where they are."""
    rng = speaker.rng
    device = pick(speaker, [device for device in house.devices if device.domain == "person"])
    target = targets.named(rng, house, device)
    intent = rng.choice(("person", "person", "person_away", "person_where"))
    question, pattern = speaker.say(intent, question=True, names=target.names, d=target.text)
    return Example("person", question, text(f"{device.name} {predicate(device)}."), (pattern,))


def reading(speaker: Speaker, house: House) -> Example:
    """What a sensor, or a list, shows."""
    device = pick(speaker, [device for device in house.devices if not device.kind.states and device.domain != "scene"])
    target = targets.named(speaker.rng, house, device)
    question, pattern = speaker.say("reading", question=True, names=target.names, d=target.text)
    who = subject(device, with_area="area" in target.arguments)
    return Example("reading", question, text(f"{who} {predicate(device)}."), (pattern,))


def quantity(speaker: Speaker, house: House) -> Example:
    """What is measured in an area: the runtime looks, because two areas may have a sensor of one name."""
    rng = speaker.rng
    word = rng.choice(("temperature", "temperature", "temperature", "humidity", "illuminance", "co2", "power"))
    measured = [device.area for device in house.devices if device.kind.word == word]
    area = rng.choice(measured if measured and rng.random() < 0.6 else house.areas)
    question, pattern = speaker.say(
        word, question=True, names=frozenset(area.lower().split()), a=targets.area_said(rng, area)
    )
    answer = calls(("HassGetState", {"area": area, **targets.kind_slots(word)}))
    return Example("area-reading", question, answer, (pattern,))


def quantity_at_home(speaker: Speaker, _house: House) -> Example:
    """What is measured in no place in particular: the runtime looks all sensors up."""
    kind = speaker.rng.choice(("temperature", "temperature", "humidity"))
    question, pattern = speaker.say(f"{kind}_at_home", question=True)
    return Example("list", question, calls(("HassGetState", targets.kind_slots(kind))), (pattern,))


_PROPERTIES = {
    "brightness": "brightness_of",
    "color": "color_of",
    "position": "position_of",
    "target": "target_of",
    "speed": "speed_of",
    "volume": "volume_of",
    "battery": "battery_of",
}


def property_of(speaker: Speaker, house: House) -> Example:
    """Brightness, color, position, target, speed, volume, battery of one device; of one that is off, that it is off."""
    rng = speaker.rng
    asked = [
        (device, name)
        for device in house.devices
        for name in device.kind.properties
        if name in _PROPERTIES and (name in device.properties or device.state == "off")
    ]
    if not asked:
        raise NoSuchQuestionError("property")
    device, name = rng.choice(asked)
    target = targets.named(rng, house, device)
    question, pattern = speaker.say(_PROPERTIES[name], question=True, names=target.names, d=target.text)
    who = subject(device, with_area="area" in target.arguments)
    if name not in device.properties:
        return Example("property", question, text(f"{who} is off."), (pattern,))
    value = as_words(device.properties[name]) + (f" {UNITS[name]}" if name in UNITS else "")
    return Example("property", question, text(f"The {name} of {who} is {value}."), (pattern,))


def time(speaker: Speaker, house: House) -> Example:
    """The time of day and the day of the week, as the head of the prompt has them."""
    intent = speaker.rng.choice(("time", "time", "day"))
    question, pattern = speaker.say(intent, question=True)
    if house.time is None:
        return Example("time", question, text("I do not know the time."), (pattern,))
    day, clock = house.time.split(" ")
    return Example("time", question, text(f"It is {clock}." if intent == "time" else f"It is {day}."), (pattern,))


_LISTED: dict[str, dict[str, tuple[str, ...]]] = {
    "light": SAID_STATES["light"],
    "switch": SAID_STATES["switch"],
    "outlet": SAID_STATES["switch"],
    "fan": SAID_STATES["fan"],
    "lock": SAID_STATES["lock"],
    "blind": SAID_STATES["cover"],
    "curtain": SAID_STATES["cover"],
    "shutter": SAID_STATES["cover"],
    "awning": SAID_STATES["cover"],
    "garage": SAID_STATES["cover"],
    "gate": SAID_STATES["cover"],
    "cover": SAID_STATES["cover"],
    "door": SAID_STATES["opening"],
    "window": SAID_STATES["opening"],
    "climate": {"on": ("on", "running"), "off": ("off", "turned off")},
    "media player": SAID_STATES["media player"],
    "vacuum": SAID_STATES["vacuum"],
    "motion": SAID_STATES["detector"],
    "smoke": SAID_STATES["detector"],
    "leak": SAID_STATES["leak"],
    "occupancy": SAID_STATES["detector"],
}
_MEASURED = ("temperature", "humidity", "battery", "power", "co2", "energy", "illuminance", "soil moisture")


def where(speaker: Speaker, house: House) -> tuple[str, dict[str, str]]:
    """Return a place to ask about, or none: its words and its slots."""
    rng, roll = speaker.rng, speaker.rng.random()
    if roll < 0.45:
        return rng.choice(("", "", "", "in the house", "at home", "anywhere")), {}
    if roll < 0.62 and house.floors:
        floor = rng.choice(house.floors)
        return targets.on_floor(rng, floor), {"floor": floor}
    area = rng.choice(house.areas)
    return f"in {targets.area_said(rng, area)}", {"area": area}


def listing(speaker: Speaker, house: House) -> Example:
    """What the runtime looks up, counts or computes."""
    rng = speaker.rng
    place, slots = where(speaker, house)
    present = [device.kind.word for device in house.devices]
    pool = [*present, *present, *_LISTED]
    roll = rng.random()
    if roll < 0.5:
        kind = rng.choice([word for word in pool if word in _LISTED])
        wanted, ways = rng.choice(list(_LISTED[kind].items()))
        question, pattern = speaker.say(
            "list_state",
            question=True,
            ks=targets.plural(rng, house, kind),
            s=rng.choice(ways),
            k=KIND_WORDS[kind][0][0],
            w=place,
        )
        arguments = {**slots, **targets.kind_slots(kind), "state": wanted}
    elif roll < 0.65:
        kind = rng.choice([word for word in pool if word in KIND_WORDS and word not in _MEASURED])
        question, pattern = speaker.say("list_kind", question=True, ks=targets.plural(rng, house, kind), w=place)
        arguments = {**slots, **targets.kind_slots(kind)}
    elif roll < 0.78:
        area = rng.choice(house.areas)
        question, pattern = speaker.say("list_area", question=True, a=targets.area_said(rng, area))
        arguments = {"area": area}
    elif roll < 0.9:
        question, pattern = speaker.say("list_on", question=True, w=place)
        arguments = {**slots, "state": "on"}
    else:
        kind = rng.choice(_MEASURED)
        question, pattern = speaker.say(
            "list_sensor", question=True, ks=targets.plural(rng, house, kind), k=KIND_WORDS[kind][0][0], w=place
        )
        arguments = {**slots, **targets.kind_slots(kind)}
    return Example("list", question, calls(("HassGetState", arguments)), (pattern,))


def who(speaker: Speaker, _house: House) -> Example:
    """Who is at home, or away."""
    intent, wanted = speaker.rng.choice((("who_home", "home"), ("who_home", "home"), ("who_away", "away")))
    question, pattern = speaker.say(intent, question=True)
    return Example("who", question, calls(("HassGetState", {"domain": "person", "state": wanted})), (pattern,))
