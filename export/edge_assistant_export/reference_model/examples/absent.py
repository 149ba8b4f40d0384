"""What the home lacks: a device, a kind, an area, a floor, a list.

The call has it as it was said, and the runtime says what is missing: a model may see a part of the home only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_assistant.home.wording import the
from edge_assistant_export.reference_model import made_up, targets
from edge_assistant_export.reference_model.examples.actions import COMMANDED, action
from edge_assistant_export.reference_model.examples.base import Example, NoSuchQuestionError, Speaker, calls
from edge_assistant_export.reference_model.examples.commands import INDIRECT, commanded, pick, said
from edge_assistant_export.reference_model.lexicon.names import AREAS, DEVICES, FLOORS, ITEMS
from edge_assistant_export.reference_model.lexicon.words import KIND_WORDS, SAID_STATES
from edge_assistant_export.reference_model.targets import Target

if TYPE_CHECKING:
    from edge_assistant_export.reference_model.homes import House


_AREA_WORDS = frozenset(area.lower() for area in AREAS)


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
    if name.rsplit(" ", 1)[0] in _AREA_WORDS:
        raise NoSuchQuestionError("absent")  # "the porch light" would as well be the light of a porch
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
    """A command or question about a device, kind or area that is not there."""
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
    return _asked(speaker, Target(spoken, {"name": name} | ({"area": area} if area else {}), kind, words))


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
    words = frozenset(f"{name} {area}".lower().split())
    return _asked(speaker, Target(spoken, {"name": device.name, "area": area}, device.kind.word, words))


def _absent_area(speaker: Speaker, house: House) -> Example:
    rng = speaker.rng
    area = _foreign_area(speaker, house)
    if rng.random() < 0.3:
        return _measured_in(speaker, area) if rng.random() < 0.4 else _wished(speaker, area)
    return _asked(speaker, targets.of_area(rng, house, area, rng.choice(COMMANDED[:11])))


def _measured_in(speaker: Speaker, area: str) -> Example:
    """Ask what is measured, or stands, in an area that is not there."""
    intent = speaker.rng.choice(("temperature", "humidity", "list_area"))
    slots = {} if intent == "list_area" else targets.kind_slots(intent)
    question, pattern = speaker.say(intent, question=True, names=frozenset(area.split()), a=the(area))
    return Example("absent", question, calls(("HassGetState", {"area": area, **slots})), (pattern,))


def _wished(speaker: Speaker, area: str, kinds: tuple[str, ...] = ("light", "climate")) -> Example:
    """Wish for light or warmth where nothing can give it."""
    intent, kind, tool, extra = speaker.rng.choice([row for row in INDIRECT if row[1] in kinds])
    words = frozenset(area.lower().split())
    question, pattern = speaker.say(intent, names=words, a=targets.area_said(speaker.rng, area))
    return Example("absent", question, calls((tool, {"area": area, **targets.kind_slots(kind), **extra})), (pattern,))


def _absent_kind(speaker: Speaker, house: House) -> Example:
    rng = speaker.rng
    kind = rng.choice(COMMANDED)
    area = rng.choice(house.areas)
    if any(targets.holds(device, kind) and device.area == area for device in house.devices):
        raise NoSuchQuestionError("absent")
    known = _words_of(house)
    if any(word in known for word in KIND_WORDS[kind][0]):
        raise NoSuchQuestionError("absent")
    if kind in ("light", "climate") and rng.random() < 0.3:
        return _wished(speaker, area, (kind,))
    return _asked(speaker, targets.of_area(rng, house, area, kind), questions=False)


def _absent_list(speaker: Speaker, house: House) -> Example:
    if any(device.domain == "todo" for device in house.devices):
        raise NoSuchQuestionError("absent")
    item = speaker.rng.choice(ITEMS)
    name = speaker.rng.choice(DEVICES["todo"])
    question, pattern = speaker.say("list_add", names=frozenset(f"{item} {name}".split()), x=item, l=f"the {name}")
    return Example("absent", question, calls(("HassListAddItem", {"item": item, "name": name})), (pattern,))


def _asked(speaker: Speaker, target: Target, *, questions: bool = True) -> Example:
    """Put a command, or sometimes a question, about a target that is not there into words."""
    rng = speaker.rng
    if questions and rng.random() < 0.3 and target.kind in SAID_STATES:
        ways = rng.choice(list(SAID_STATES[target.kind].values()))
        question, pattern = speaker.say(
            "is_state", question=True, names=target.names, d=target.text, s=rng.choice(ways)
        )
        return Example("absent", question, calls(("HassGetState", target.arguments)), (pattern,))
    one = said(speaker, target, action(rng, target.kind))
    return Example("absent", one.question, one.answer, one.patterns)


def absent_floor(speaker: Speaker, house: House) -> Example:
    """A command for a floor that the home does not name."""
    rng = speaker.rng
    floor = rng.choice([floor for floor in FLOORS if floor not in house.floors])
    if not house.floors or any(floor in word or word in floor for word in (*_words_of(house), *house.floors)):
        raise NoSuchQuestionError("absent")
    return _asked(speaker, targets.of_floor(rng, house, floor, rng.choice(COMMANDED[:8])), questions=False)
