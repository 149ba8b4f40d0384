"""Second turns: the same elsewhere, the reverse, another value, the answer to a question back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_assistant.errors import UnknownDeviceError
from edge_assistant.home.resolve import TARGET_SLOTS, resolve, target_of
from edge_assistant.home.wording import MOST_CHOICES, the
from edge_assistant.text.messages import ToolCall
from edge_assistant_export.reference_model import made_up, targets, values
from edge_assistant_export.reference_model.examples import bare
from edge_assistant_export.reference_model.examples.actions import BRIGHT, COVERS, DIM, OFF, ON, Action
from edge_assistant_export.reference_model.examples.base import Example, NoSuchQuestionError, Speaker, calls, text
from edge_assistant_export.reference_model.examples.commands import commanded, pick
from edge_assistant_export.reference_model.examples.questions import predicate, said_states, subject
from edge_assistant_export.reference_model.lexicon.names import COLORS, ITEMS

if TYPE_CHECKING:
    from edge_assistant.home.registry import Device
    from edge_assistant_export.reference_model.homes import House


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said before, and what it was about: the example, and for a question back the devices and the action."""

    example: Example
    devices: tuple[Device, ...] = ()
    action: Action | None = None


def ambiguous_turn(speaker: Speaker, house: House) -> Turn:
    """Return a turn in which the model asked back."""
    asked = bare.roomless if speaker.rng.random() < 0.2 else bare.ambiguous
    example, devices, act = asked(speaker, house)
    return Turn(example, tuple(devices), act)


def follow_up(speaker: Speaker, house: House, before: Turn) -> Example:
    """Return something that only makes sense after the turn before."""
    act, made = before.action, before.example.answer.calls
    if act is not None:
        return _room(speaker, before, act) if act.kind == "room" else _chosen(speaker, before, act)
    if not made:
        return _about_it(speaker, house, before.example)
    if len(made) == 1:
        return _after_call(speaker, house, made[0])
    raise NoSuchQuestionError("follow-up")


def _after_call(speaker: Speaker, house: House, call: ToolCall) -> Example:
    if call.name == "HassGetState":
        return _after_list(speaker, house, call)
    if call.name == "HassStartTimer":
        question, pattern = speaker.say("cancel_that_timer")
        named = {"name": call.arguments["name"]} if "name" in call.arguments else {}
        return Example("follow-up", question, calls(("HassCancelTimer", named)), (pattern,))
    if call.name == "HassListAddItem":
        item = made_up.thing(speaker.rng, [one for one in ITEMS if one != call.arguments["item"]])
        question, pattern = speaker.say("another_item", names=frozenset(item.split()), x=item)
        return Example("follow-up", question, calls((call.name, {**call.arguments, "item": item})), (pattern,))
    if call.name == "HassCancelTimer" or _kind_of(house, call) in (None, "scene"):
        raise NoSuchQuestionError("follow-up")
    return _after_command(speaker, house, call)


def _meant(house: House, call: ToolCall) -> list[Device]:
    """Return the devices that a call was aimed at, none where the home has none."""
    try:
        return resolve(house.devices, target_of(call.arguments))
    except UnknownDeviceError:
        return []


def _kind_of(house: House, call: ToolCall) -> str | None:
    """Return the kind of what a call was aimed at, None for a mixture, or where it is open."""
    if not call.arguments.keys() & {"name", "domain"}:
        return None
    found = _meant(house, call)
    kinds = {device.kind.word for device in found}
    if "name" in call.arguments and len(found) > 1:
        return None
    return kinds.pop() if len(kinds) == 1 else "cover" if kinds and kinds <= set(COVERS) else None


def _rest_of(call: ToolCall) -> dict[str, Any]:
    return {slot: value for slot, value in call.arguments.items() if slot not in TARGET_SLOTS}


def _after_command(speaker: Speaker, house: House, call: ToolCall) -> Example:
    kind = _kind_of(house, call)
    roll = speaker.rng.random()
    if roll < 0.35:
        return _same_elsewhere(speaker, house, call, kind)
    if roll < 0.45 and "name" in call.arguments:
        return _same_place(speaker, house, call)
    intent, tool, extra, slots = _change(speaker, kind, call)
    question, pattern = speaker.say(intent, slots)
    return Example("follow-up", question, calls((tool, {**target_of(call.arguments), **extra})), (pattern,))


def _same_elsewhere(speaker: Speaker, house: House, call: ToolCall, kind: str | None) -> Example:
    """The same again ("and the bedroom?", "and the desk lamp"): the same tool and value, another target."""
    rng = speaker.rng
    if kind is None:
        raise NoSuchQuestionError("follow-up")
    if "name" in call.arguments:
        last = _meant(house, call)[0]
        device = pick(
            speaker, [device for device in commanded(house) if device.domain == last.domain and device is not last]
        )
        target = targets.named(rng, house, device)
        question, pattern = speaker.say("same_for", question=rng.random() < 0.4, names=target.names, x=target.text)
        return Example("follow-up", question, calls((call.name, {**target.arguments, **_rest_of(call)})), (pattern,))
    if "area" not in call.arguments:
        raise NoSuchQuestionError("follow-up")
    areas = {
        device.area for device in house.devices if targets.holds(device, kind) and device.area != call.arguments["area"]
    }
    return _in_area(speaker, call, sorted(areas))


def _in_area(speaker: Speaker, call: ToolCall, areas: list[str]) -> Example:
    if not areas:
        raise NoSuchQuestionError("follow-up")
    rng = speaker.rng
    area = rng.choice(areas)
    question, pattern = speaker.say(
        "same_in", question=rng.random() < 0.5, names=frozenset(area.lower().split()), a=targets.area_said(rng, area)
    )
    return Example("follow-up", question, calls((call.name, {**call.arguments, "area": area})), (pattern,))


def _same_place(speaker: Speaker, house: House, call: ToolCall) -> Example:
    """After a command ("is it on?"): the state of what was just spoken of."""
    device = _meant(house, call)[0]
    if device.name != call.arguments["name"]:
        raise NoSuchQuestionError("follow-up")
    return _state_of_it(speaker, device, with_area="area" in call.arguments)


def _state_of_it(speaker: Speaker, device: Device, *, with_area: bool) -> Example:
    rng = speaker.rng
    who = subject(device, with_area=with_area)
    if rng.random() < 0.5 or not said_states(device) or device.state is None:
        question, pattern = speaker.say("how_is_it", question=True)
        return Example("follow-up", question, text(f"{who} {predicate(device)}."), (pattern,))
    ways = rng.choice(list(said_states(device).values()))
    question, pattern = speaker.say("is_it", question=True, s=rng.choice(ways))
    return Example("follow-up", question, text(f"{who} {predicate(device)}."), (pattern,))


def _change(speaker: Speaker, kind: str | None, call: ToolCall) -> tuple[str, str, dict[str, Any], dict[str, str]]:
    """Return another thing to do to the same target: intent, tool, values, words."""
    rng = speaker.rng
    reverse = ON if call.name == OFF else OFF
    percent = values.percentage(rng)
    said = {"n": values.percentage_said(rng, percent)}
    color = rng.choice(COLORS)
    warmth = values.degrees(rng)
    choices: list[tuple[str, str, dict[str, Any], dict[str, str]]] = []
    if kind in ("light", "switch", "outlet", "fan", "media player", "climate"):
        choices.append(("redo" if reverse == ON else "undo", reverse, {}, {}))
    if kind == "light":
        choices += [
            ("it_brightness", "HassLightSet", {"brightness": percent}, said),
            ("it_color", "HassLightSet", {"color": color}, {"c": color}),
            ("it_dim", "HassLightSet", {"brightness": DIM}, {}),
            ("it_bright", "HassLightSet", {"brightness": BRIGHT}, {}),
        ]
    if kind in COVERS:
        choices += [
            ("it_open" if reverse == ON else "it_close", reverse, {}, {}),
            ("it_half", "HassSetPosition", {"position": 50}, {}),
            ("it_position", "HassSetPosition", {"position": percent}, said),
        ]
    if kind == "lock":
        choices.append(("it_lock" if reverse == ON else "it_unlock", reverse, {}, {}))
    if kind == "climate":
        choices.append(
            (
                "it_climate",
                "HassClimateSetTemperature",
                {"temperature": warmth},
                {"v": values.degrees_said(rng, warmth)},
            )
        )
    if kind == "media player":
        choices.append(("it_volume", "HassSetVolume", {"volume_level": percent}, said))
    if kind == "fan":
        choices.append(("it_speed", "HassFanSetSpeed", {"percentage": percent}, said))
    if not choices:
        raise NoSuchQuestionError("follow-up")
    return rng.choice(choices)


_THEM = (
    ("light", "them_off", OFF),
    ("light", "them_on", ON),
    ("switch", "them_off", OFF),
    ("fan", "them_off", OFF),
    ("cover", "them_open", ON),
    ("cover", "them_close", OFF),
    ("lock", "them_lock", ON),
)


def _after_list(speaker: Speaker, house: House, call: ToolCall) -> Example:
    rng = speaker.rng
    domain = call.arguments.get("domain")
    reactions = [
        row for row in _THEM if row[0] == domain and call.arguments.get("state") not in (_RESULT[row[1]], None)
    ]
    if reactions and rng.random() < 0.5:
        _, intent, tool = rng.choice(reactions)
        question, pattern = speaker.say(intent)
        return Example("follow-up", question, calls((tool, target_of(call.arguments))), (pattern,))
    if domain == "person" or "floor" in call.arguments:
        raise NoSuchQuestionError("follow-up")
    rest = {slot: value for slot, value in call.arguments.items() if slot != "area"}
    areas = [area for area in house.areas if area != call.arguments.get("area")]
    return _in_area(speaker, ToolCall(call.name, {"area": "", **rest}), areas)


_RESULT = {"them_off": "off", "them_on": "on", "them_open": "open", "them_close": "closed", "them_lock": "locked"}


def _about_it(speaker: Speaker, house: House, before: Example) -> Example:
    """After a sentence about one device: its state again, or that of another."""
    rng = speaker.rng
    if before.kind not in ("yes-no", "state"):
        raise NoSuchQuestionError("follow-up")
    device = pick(speaker, [device for device in house.devices if device.kind.states and device.domain != "person"])
    target = targets.named(rng, house, device)
    question, pattern = speaker.say("same_for", question=True, names=target.names, x=target.text)
    if any(word in question.lower() for word in ("do ", "next", "repeat", "make", "handle")):
        raise NoSuchQuestionError("follow-up")
    who = subject(device, with_area="area" in target.arguments)
    return Example("follow-up", question, text(f"{who} {predicate(device)}."), (pattern,))


def _chosen(speaker: Speaker, before: Turn, act: Action) -> Example:
    """The answer to a question back: one of the devices, by area, name or place in the list, or both.

    An area narrows the word that was said before; a name, or a place in the list, takes what the question back says.
    """
    rng, devices = speaker.rng, before.devices
    intents = ["pick_area", "pick_area", "pick_name", "pick_name"]
    intents += ["pick_first", "pick_second", "pick_both"] if len(devices) == 2 else []
    intent = rng.choice(intents)
    if intent == "pick_area":
        return _picked_by_area(speaker, before, act)
    if intent == "pick_name":
        return _picked_by_name(speaker, devices, act)
    chosen = devices if intent == "pick_both" else devices[:1] if intent == "pick_first" else devices[1:]
    question, pattern = speaker.say(intent)
    made = [(act.tool, {"name": one.name, "area": one.area, **act.extra}) for one in chosen]
    return Example("ask-back-answer", question, calls(*made), (pattern,))


def _picked_by_area(speaker: Speaker, before: Turn, act: Action) -> Example:
    area = speaker.rng.choice(before.devices).area
    if sum(one.area == area for one in before.devices) > 1:
        raise NoSuchQuestionError("follow-up")
    room = targets.lower(speaker.rng, area)
    question, pattern = speaker.say("pick_area", names=frozenset(area.lower().split()), a=the(room), b=room)
    said = before.example.answer.calls[0].arguments["name"]
    return Example(
        "ask-back-answer", question, calls((act.tool, {"name": said, "area": area, **act.extra})), (pattern,)
    )


def _picked_by_name(speaker: Speaker, devices: tuple[Device, ...], act: Action) -> Example:
    device = speaker.rng.choice(devices)
    first = device.name.lower().rsplit(" ", 1)[0]
    if " " not in device.name or len(devices) > MOST_CHOICES or sum(first in one.name.lower() for one in devices) > 1:
        raise NoSuchQuestionError("follow-up")
    said = speaker.rng.choice((first, f"{first} one", device.name.lower(), device.name.lower()))
    question, pattern = speaker.say("pick_name", names=frozenset(said.split()), x=said)
    return Example("ask-back-answer", question, calls((act.tool, {"name": device.name, **act.extra})), (pattern,))


def _room(speaker: Speaker, before: Turn, act: Action) -> Example:
    """The answer to "which room": the wish, for that room."""
    device = speaker.rng.choice(before.devices)
    names = frozenset(device.area.lower().split())
    question, pattern = speaker.say("pick_room", names=names, a=targets.area_said(speaker.rng, device.area))
    arguments = {"area": device.area, **targets.kind_slots(device.kind.word), **act.extra}
    return Example("ask-back-answer", question, calls((act.tool, arguments)), (pattern,))
