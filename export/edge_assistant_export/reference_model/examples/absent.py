"""What the home lacks: a device, a kind, an area, a floor, a list. The answer names what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_assistant.home.wording import the
from edge_assistant_export.reference_model import made_up, targets
from edge_assistant_export.reference_model.examples.actions import COMMANDED, action
from edge_assistant_export.reference_model.examples.base import Example, NoSuchQuestionError, Speaker, text
from edge_assistant_export.reference_model.examples.commands import commanded, pick, said
from edge_assistant_export.reference_model.lexicon.names import AREAS, DEVICES, FLOORS, ITEMS
from edge_assistant_export.reference_model.lexicon.words import KIND_WORDS, SAID_STATES
from edge_assistant_export.reference_model.targets import Target

if TYPE_CHECKING:
    from edge_assistant_export.reference_model.homes import House


def refusal(what: str, area: str | None = None) -> str:
    """Return how the model says that the home lacks something."""
    return f"There is no {what} in {the(area)}." if area else f"There is no {what}."


def _words_of(house: House) -> set[str]:
    return {word for device in house.devices for word in (device.name.lower(), device.area.lower())}


def _foreign_name(speaker: Speaker, house: House, kind: str) -> str:
    """Return a name for a device that the home does not have, not even as a part of another name."""
    rng = speaker.rng
    name = (
        made_up.name(rng, rng.choice(DEVICES[kind]).split(" ")[-1]) if rng.random() < 0.5 else rng.choice(DEVICES[kind])
    )
    known = _words_of(house)
    kind_words = {word for one in COMMANDED for word in KIND_WORDS[one][0]}
    if any(name in word or word in name or word.endswith(name.split(" ")[-1]) for word in known) or name in kind_words:
        raise NoSuchQuestionError("absent")
    return name


def _foreign_area(speaker: Speaker, house: House) -> str:
    rng = speaker.rng
    area = made_up.name(rng, "room") if rng.random() < 0.4 else rng.choice(AREAS).lower()
    if any(area in word or word in area for word in _words_of(house)):
        raise NoSuchQuestionError("absent")
    return area


def absent(speaker: Speaker, house: House) -> Example:
    """A command or question about a device, kind or area that is not there: the answer names what is missing."""
    rng = speaker.rng
    roll = rng.random()
    if roll < 0.4:
        return _absent_device(speaker, house)
    if roll < 0.52:
        return _elsewhere(speaker, house)
    if roll < 0.76:
        return _absent_area(speaker, house)
    if roll < 0.95:
        return _absent_kind(speaker, house)
    return _absent_list(speaker, house)


def _absent_device(speaker: Speaker, house: House) -> Example:
    rng = speaker.rng
    kind = rng.choice(COMMANDED)
    name = _foreign_name(speaker, house, kind)
    area = rng.choice(house.areas) if rng.random() < 0.25 else None
    words = frozenset(f"{name} {area or ''}".lower().split())
    spoken = f"{the(name)} in {the(targets.lower(rng, area))}" if area else the(name) if rng.random() < 0.85 else name
    return _asked(speaker, Target(spoken, {}, kind, words), refusal(name, area))


def _elsewhere(speaker: Speaker, house: House) -> Example:
    """A device that stands in another area than the one named."""
    rng = speaker.rng
    device = pick(speaker, commanded(house))
    others = [
        area
        for area in house.areas
        if not any(one.area == area and one.name.lower() == device.name.lower() for one in house.devices)
    ]
    if (
        not others
        or device.name.lower() in KIND_WORDS[device.kind.word][0]
        or device.area.lower() in device.name.lower()
    ):
        raise NoSuchQuestionError("elsewhere")
    area = rng.choice(others)
    name, room = device.name.lower(), targets.lower(rng, area)
    spoken = rng.choice((f"{the(name)} in {the(room)}", f"{name} in {the(room)}"))
    target = Target(spoken, {}, device.kind.word, frozenset(f"{name} {area}".lower().split()))
    return _asked(speaker, target, refusal(name, area))


def _absent_area(speaker: Speaker, house: House) -> Example:
    rng = speaker.rng
    area = _foreign_area(speaker, house)
    if rng.random() < 0.3:
        intent = rng.choice(("light_up", "lights_out", "warmer", "cooler", "temperature", "humidity", "list_area"))
        asks = intent in ("temperature", "humidity", "list_area")
        question, pattern = speaker.say(intent, question=asks, names=frozenset(area.split()), a=the(area))
        return Example("absent", question, text(refusal(area)), (pattern,))
    kind = rng.choice(COMMANDED[:11])
    return _asked(speaker, targets.of_area(rng, house, area, kind), refusal(area))


def _absent_kind(speaker: Speaker, house: House) -> Example:
    rng = speaker.rng
    kind = rng.choice(COMMANDED)
    area = rng.choice(house.areas)
    if any(targets.holds(device, kind) and device.area == area for device in house.devices):
        raise NoSuchQuestionError("absent")
    known = _words_of(house)
    if any(word in known for word in KIND_WORDS[kind][0]):
        raise NoSuchQuestionError("absent")
    if kind == "climate" and rng.random() < 0.3:
        intent = rng.choice(("warmer", "cooler"))
        question, pattern = speaker.say(intent, names=frozenset(area.lower().split()), a=targets.area_said(rng, area))
        return Example("absent", question, text(refusal(kind, area)), (pattern,))
    if kind == "light" and rng.random() < 0.3:
        intent = rng.choice(("light_up", "lights_out"))
        question, pattern = speaker.say(intent, names=frozenset(area.lower().split()), a=targets.area_said(rng, area))
        return Example("absent", question, text(refusal(kind, area)), (pattern,))
    return _asked(speaker, targets.of_area(rng, house, area, kind), refusal(kind, area), questions=False)


def _absent_list(speaker: Speaker, house: House) -> Example:
    if any(device.domain == "todo" for device in house.devices):
        raise NoSuchQuestionError("absent")
    item = speaker.rng.choice(ITEMS)
    name = speaker.rng.choice(DEVICES["todo"])
    question, pattern = speaker.say("list_add", names=frozenset(f"{item} {name}".split()), x=item, l=f"the {name}")
    return Example("absent", question, text(refusal(name)), (pattern,))


def _asked(speaker: Speaker, target: Target, answer: str, *, questions: bool = True) -> Example:
    """Put a command, or sometimes a question, about a target that is not there into words."""
    rng = speaker.rng
    if questions and rng.random() < 0.3 and target.kind in SAID_STATES:
        ways = rng.choice(list(SAID_STATES[target.kind].values()))
        question, pattern = speaker.say(
            "is_state", question=True, names=target.names, d=target.text, s=rng.choice(ways)
        )
        return Example("absent", question, text(answer), (pattern,))
    one = said(speaker, target, action(rng, target.kind))
    return Example("absent", one.question, text(answer), one.patterns)


def absent_floor(speaker: Speaker, house: House) -> Example:
    """A command for a floor that the home does not name."""
    rng = speaker.rng
    floor = rng.choice([floor for floor in FLOORS if floor not in house.floors])
    if not house.floors or any(floor in word or word in floor for word in (*_words_of(house), *house.floors)):
        raise NoSuchQuestionError("absent")
    return _asked(
        speaker, targets.of_floor(rng, house, floor, rng.choice(COMMANDED[:8])), refusal(floor), questions=False
    )
