"""What has no device to act on: things the home lacks, two that fit, sensor events, small talk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_assistant.home.registry import as_words
from edge_assistant.home.wording import the
from edge_assistant_export.reference_model import homes, made_up, targets
from edge_assistant_export.reference_model.examples.actions import COMMANDED, Action, action
from edge_assistant_export.reference_model.examples.base import Example, NoSuchQuestionError, Speaker, text
from edge_assistant_export.reference_model.examples.commands import commanded, pick, said
from edge_assistant_export.reference_model.examples.questions import predicate
from edge_assistant_export.reference_model.lexicon.names import AREAS, DEVICES, FLOORS, ITEMS
from edge_assistant_export.reference_model.lexicon.words import CHAT, KIND_WORDS, SAID_STATES
from edge_assistant_export.reference_model.targets import Target

if TYPE_CHECKING:
    from edge_assistant.home.registry import Device
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


def _by_last_word(house: House) -> dict[str, list[Device]]:
    """Return for each word that a bare "the ..." may say the devices it can mean.

    The last words of names come first; a word for a kind means all devices of the kind where no name holds it.
    """
    found: dict[str, list[Device]] = {}
    for device in house.devices:
        found.setdefault(device.name.lower().split(" ")[-1], []).append(device)
    spoken = {word for device in house.devices for word in f"{device.area} {device.name}".lower().split()}
    spoken |= {word.removesuffix("s") for word in spoken}
    for kind in COMMANDED:
        members = [device for device in house.devices if device.kind.word == kind]
        for word in KIND_WORDS[kind][0][:2]:
            if members and word not in (*spoken, "music", "thermostat") and not spoken.intersection(word.split()):
                found[word] = members
    return found


def askable(house: House) -> list[tuple[str, list[Device]]]:
    """Return the words that fit several devices of one sort, with those devices."""
    return [
        (word, devices)
        for word, devices in _by_last_word(house).items()
        if len(devices) > 1
        and all(device.kind.word in COMMANDED for device in devices)
        and len({device.domain for device in devices}) == 1
        and not word.isdigit()
        and not any(word in device.area.lower() for device in devices)
        and (
            all(device.name.lower() == word for device in devices)
            or not any(device.name.lower() == word for device in devices)
        )
    ]


def which(devices: list[Device], word: str) -> str:
    """Return the question back: both by name and area where there are two, the word alone where there are more."""
    if len(devices) > 2:
        return f"Which {word} do you mean?"
    first, second = (f"{the(device.name)} in {the(device.area)}" for device in devices)
    return f"Which one: {first} or {second}?"


def ambiguous(speaker: Speaker, house: House) -> tuple[list[Device], str, Action, str, str]:
    """Return a command that fits several devices: those, the word that was said, the action, sentence and pattern."""
    word, devices = speaker.rng.choice(askable(house) or _none())
    act = action(speaker.rng, devices[0].kind.word)
    spoken = speaker.rng.choice((f"the {word}", f"the {word}", word, f"my {word}"))
    question, pattern = speaker.say(act.intent, act.slots, names=frozenset([word]), t=spoken)
    return devices, word, act, question, pattern


def _none() -> list[tuple[str, list[Device]]]:
    raise NoSuchQuestionError("ask-back")


def ask_back(speaker: Speaker, house: House) -> Example:
    """A command that fits two devices or more."""
    devices, word, _, question, pattern = ambiguous(speaker, house)
    return Example("ask-back", question, text(which(devices, word)), (pattern,))


def partial(speaker: Speaker, house: House) -> Example:
    """The last word of a name, or the word for its kind, stands for the one device that it fits."""
    rng = speaker.rng
    said_alone = [
        (word, devices[0])
        for word, devices in _by_last_word(house).items()
        if len(devices) == 1
        and devices[0].kind.word in COMMANDED
        and devices[0].name.lower() != word
        and not word.isdigit()
        and not any(word in plural for _, plural in KIND_WORDS.values())
        and sum(word in f"{one.area} {one.name}".lower().split() for one in house.devices) <= 1
    ]
    if not said_alone:
        raise NoSuchQuestionError("partial")
    word, device = rng.choice(said_alone)
    target = Target(
        rng.choice((f"the {word}", f"the {word}", word)), {"name": device.name}, device.kind.word, frozenset([word])
    )
    one = said(speaker, target, action(rng, device.kind.word))
    return Example("partial-name", one.question, one.answer, one.patterns)


def event(speaker: Speaker, house: House) -> Example:
    """A sensor reports a change; the answer tells a person about it in one sentence."""
    rng = speaker.rng
    changed = [
        device for device in house.devices if device.state is not None and device.domain not in ("scene", "todo")
    ]
    device = pick(speaker, changed)
    now, unit = device.state, device.unit or device.kind.unit
    if device.kind.states:
        before = rng.choice([state for state in device.kind.states if state != now])
    else:
        before = as_words(homes.reading(rng, device.kind.word))
    if unit and not device.kind.states:
        now, before = f"{now} {unit}", f"{before} {unit}"
    question = f"event: {device.name} in {device.area} changed from {before} to {now}"
    return Example("event", question, text(alert(device)), ("event",))


def alert(device: Device) -> str:
    """Return the sentence that tells of a device's new state."""
    who = device.name if device.domain == "person" else f"{the(device.name)} in {the(device.area)}"
    what = predicate(device)
    if device.state == "wet" or (device.kind.word in ("smoke", "gas") and device.state == "detected"):
        return f"Warning: {who} {what}!"
    return f"{who} is now {what[3:]}." if what.startswith("is ") else f"{who} now {what}."


def chat(speaker: Speaker, house: House) -> Example:
    """A greeting, thanks, or something that is none of the assistant's business."""
    intent = speaker.rng.choices(list(CHAT), (2, 2, 1, 2, 2, 8))[0]
    question, pattern = speaker.say(intent, question=intent == "off_topic")
    if any(device.domain == "scene" and device.name.lower() in question.lower() for device in house.devices):
        raise NoSuchQuestionError(intent)
    kind = "off-topic" if intent == "off_topic" else "talk"
    return Example(kind, question, text(CHAT[intent]), (pattern,))


def absent_floor(speaker: Speaker, house: House) -> Example:
    """A command for a floor that the home does not name."""
    rng = speaker.rng
    floor = rng.choice([floor for floor in FLOORS if floor not in house.floors])
    if not house.floors or any(floor in word or word in floor for word in (*_words_of(house), *house.floors)):
        raise NoSuchQuestionError("absent")
    return _asked(speaker, targets.of_floor(rng, floor, rng.choice(COMMANDED[:8])), refusal(floor), questions=False)
