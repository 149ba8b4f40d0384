"""Bare words: "the lamp" where one device fits, where several do, and wishes that name no room.

A bare word goes into the call as it was said: the runtime finds the device, or asks back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_assistant_export.reference_model.examples.actions import COMMANDED, Action, action
from edge_assistant_export.reference_model.examples.base import Example, NoSuchQuestionError, Speaker, calls, text
from edge_assistant_export.reference_model.examples.commands import INDIRECT, said
from edge_assistant_export.reference_model.examples.questions import said_states
from edge_assistant_export.reference_model.homes import BY_WORD
from edge_assistant_export.reference_model.lexicon.words import KIND_WORDS
from edge_assistant_export.reference_model.phrasing import polite, worn
from edge_assistant_export.reference_model.targets import Target

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_assistant.home.registry import Device
    from edge_assistant_export.reference_model.homes import House

WHICH_ROOM = "Which room do you mean?"
_PLURALS = frozenset(word for _, plurals in KIND_WORDS.values() for word in plurals)
_STATED = tuple(word for word, kind in BY_WORD.items() if kind.states and word != "person")


def by_word(house: House, kinds: Iterable[str]) -> dict[str, list[Device]]:
    """Return for each word that a bare "the ..." may say the devices it can mean.

    The last words of names come first; a word for a kind means all devices of the kind where no name holds it.
    """
    found: dict[str, list[Device]] = {}
    for device in house.devices:
        found.setdefault(device.name.lower().split(" ")[-1], []).append(device)
    spoken = {word for device in house.devices for word in f"{device.area} {device.name}".lower().split()}
    spoken |= {word.removesuffix("s") for word in spoken}
    for kind in kinds:
        members = [device for device in house.devices if device.kind.word == kind]
        for word in KIND_WORDS[kind][0][:2]:
            if members and word not in spoken and not spoken.intersection(word.split()):
                found[word] = members
    return {word: devices for word, devices in found.items() if not word.isdigit() and word not in _PLURALS}


def askable(house: House) -> list[tuple[str, list[Device]]]:
    """Return the words that fit several devices of one sort that take commands, with those devices."""
    return [
        (word, devices)
        for word, devices in by_word(house, COMMANDED).items()
        if all(device.kind.word in COMMANDED for device in devices)
        and len({device.domain for device in devices}) == 1
        and _is_open(word, devices)
    ]


def _is_open(word: str, devices: list[Device]) -> bool:
    """Return whether the word alone does not tell which of the devices is meant."""
    whole = [device.name.lower() == word for device in devices]
    return len(devices) > 1 and all(whole) == any(whole) and not any(word in device.area.lower() for device in devices)


def _spelt(word: str, devices: list[Device]) -> str:
    """Return the word as a call has it: a whole name as the home spells it, anything less as it was said."""
    return devices[0].name if devices[0].name.lower() == word else word


def ambiguous(speaker: Speaker, house: House) -> tuple[Example, list[Device], Action]:
    """Return a command that fits several devices, with those and what was to be done."""
    found = askable(house)
    if not found:
        raise NoSuchQuestionError("ask-back")
    word, devices = speaker.rng.choice(found)
    act = action(speaker.rng, devices[0].kind.word)
    spoken = speaker.rng.choice((f"the {word}", f"the {word}", word, f"my {word}"))
    target = Target(spoken, {"name": _spelt(word, devices)}, devices[0].kind.word, frozenset([word]))
    one = said(speaker, target, act)
    return Example("ask-back", one.question, one.answer, one.patterns), devices, act


def ask_back(speaker: Speaker, house: House) -> Example:
    """A command, or a question, that fits two devices or more."""
    if speaker.rng.random() < 0.8:
        return ambiguous(speaker, house)[0]
    several = [(word, devices) for word, devices in by_word(house, _STATED).items() if _is_open(word, devices)]
    several = [(word, devices) for word, devices in several if _alike(devices)]
    if not several:
        raise NoSuchQuestionError("ask-back")
    word, devices = speaker.rng.choice(several)
    return _is_it("ask-back", speaker, devices, word)


def _alike(devices: list[Device]) -> bool:
    """Return whether the same states can be asked of all the devices."""
    ways = [said_states(device) for device in devices]
    return bool(ways[0]) and all(way == ways[0] for way in ways)


def _fits_one(house: House, kinds: Iterable[str]) -> list[tuple[str, Device]]:
    """Return the words that fit one device alone without being its name."""
    return [
        (word, devices[0])
        for word, devices in by_word(house, kinds).items()
        if len(devices) == 1
        and devices[0].name.lower() != word
        and sum(word in f"{one.area} {one.name}".lower().split() for one in house.devices) <= 1
    ]


def partial(speaker: Speaker, house: House) -> Example:
    """The last word of a name, or the word for its kind, stands for the one device that it fits."""
    rng = speaker.rng
    if rng.random() < 0.25:
        return _partial_question(speaker, house)
    alone = [(word, device) for word, device in _fits_one(house, COMMANDED) if device.kind.word in COMMANDED]
    if not alone:
        raise NoSuchQuestionError("partial")
    word, device = rng.choice(alone)
    spoken = rng.choice((f"the {word}", f"the {word}", word))
    target = Target(spoken, {"name": word}, device.kind.word, frozenset([word]))
    one = said(speaker, target, action(rng, device.kind.word))
    return Example("partial-name", one.question, one.answer, one.patterns)


def _partial_question(speaker: Speaker, house: House) -> Example:
    alone = [(word, device) for word, device in _fits_one(house, _STATED) if said_states(device)]
    if not alone:
        raise NoSuchQuestionError("partial")
    word, device = speaker.rng.choice(alone)
    return _is_it("partial-name", speaker, [device], word)


def _is_it(kind: str, speaker: Speaker, devices: list[Device], word: str) -> Example:
    """Ask "is the lamp on?" of what a bare word fits; the runtime says it of each device."""
    ways = speaker.rng.choice(list(said_states(devices[0]).values()))
    names, spoken = frozenset([word]), f"the {word}"
    question, pattern = speaker.say("is_state", question=True, names=names, d=spoken, s=speaker.rng.choice(ways))
    return Example(kind, question, calls(("HassGetState", {"name": _spelt(word, devices)})), (pattern,))


def roomless(speaker: Speaker, house: House) -> tuple[Example, list[Device], Action]:
    """Return a wish that names no room ("it's too dark in here"), the devices it may mean, and what was wished."""
    rng = speaker.rng
    intent, kind, tool, extra = rng.choice(INDIRECT)
    devices = [device for device in house.devices if device.kind.word == kind]
    if not devices:
        raise NoSuchQuestionError(intent)
    pattern, sentence, imperative = speaker.core(intent, {})
    sentence = sentence.replace("in {a}", rng.choice(("in here", "here", "")))
    sentence = sentence.replace("{a}", rng.choice(("this room", "the room", "it"))).strip().replace("  ", " ")
    question = worn(rng, polite(rng, sentence, imperative=imperative), question=False)
    return Example("ask-back", question, text(WHICH_ROOM), (pattern,)), devices, Action("room", intent, tool, extra)


def which_room(speaker: Speaker, house: House) -> Example:
    """A wish that names no room."""
    return roomless(speaker, house)[0]
