"""Sensor events, and small talk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_assistant.home.registry import as_words
from edge_assistant.home.wording import the
from edge_assistant_export.reference_model import homes
from edge_assistant_export.reference_model.examples.base import Example, NoSuchQuestionError, Speaker, text
from edge_assistant_export.reference_model.examples.commands import pick
from edge_assistant_export.reference_model.examples.questions import predicate
from edge_assistant_export.reference_model.lexicon.words import CHAT

if TYPE_CHECKING:
    from edge_assistant.home.registry import Device
    from edge_assistant_export.reference_model.homes import House


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
