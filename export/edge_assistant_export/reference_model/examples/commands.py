"""Commands: to one device, a group, several at once, and those said in a roundabout way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_assistant.home.actions import EVERYDAY
from edge_assistant_export.reference_model import made_up, targets, values
from edge_assistant_export.reference_model.examples.actions import (
    COMMANDED,
    COOLER,
    COVERS,
    OFF,
    ON,
    WARMER,
    Action,
    action,
)
from edge_assistant_export.reference_model.examples.base import Example, NoSuchQuestionError, Speaker, calls
from edge_assistant_export.reference_model.lexicon.names import ITEMS, TIMER_NAMES
from edge_assistant_export.reference_model.phrasing import polite, worn
from edge_assistant_export.reference_model.targets import Target

if TYPE_CHECKING:
    from edge_assistant.home.registry import Device
    from edge_assistant_export.reference_model.homes import House


def commanded(house: House) -> list[Device]:
    """Return the devices that take commands."""
    return [device for device in house.devices if device.kind.word in COMMANDED]


def pick(speaker: Speaker, devices: list[Device]) -> Device:
    """Return one of the devices; NoSuchQuestionError where there is none."""
    if not devices:
        raise NoSuchQuestionError("device")
    return speaker.rng.choice(devices)


def a_target(speaker: Speaker, house: House) -> Target:
    """Return something to command: most often one device."""
    rng = speaker.rng
    device = pick(speaker, commanded(house))
    kind = "cover" if device.kind.word in COVERS and rng.random() < 0.06 else device.kind.word
    roll = rng.random()
    if roll < 0.6:
        return targets.named(rng, house, device, door=True)
    if roll < 0.86 or (roll < 0.92 and device.floor is None):
        return targets.of_area(rng, house, device.area, kind)
    if roll < 0.92 and device.floor is not None:
        return targets.of_floor(rng, house, device.floor, kind)
    return targets.of_all(rng, house, kind)


def command(speaker: Speaker, house: House) -> Example:
    """One thing done to one target."""
    target = a_target(speaker, house)
    return said(speaker, target, action(speaker.rng, target.kind))


def said(speaker: Speaker, target: Target, act: Action) -> Example:
    """Put an action on a target into words."""
    question, pattern = speaker.say(act.intent, act.slots, names=target.names, t=target.text)
    return Example(act.kind, question, calls((act.tool, {**target.arguments, **act.extra})), (pattern,))


def scene(speaker: Speaker, house: House) -> Example:
    """Activate a scene."""
    device = pick(speaker, [device for device in house.devices if device.domain == "scene"])
    name = targets.lower(speaker.rng, device.name)
    target = Target(
        name if speaker.rng.random() < 0.8 else f"the {name}", {"name": device.name}, "scene", frozenset(name.split())
    )
    return said(speaker, target, action(speaker.rng, "scene"))


def everything_off(speaker: Speaker, house: House) -> Example:
    """Switch all of an area off (or on)."""
    device = pick(speaker, [device for device in house.devices if device.domain in EVERYDAY])
    target = targets.everything(speaker.rng, device.area)
    act = Action("on-off", "off", OFF) if speaker.rng.random() < 0.8 else Action("on-off", "on", ON)
    return said(speaker, target, act)


def several(speaker: Speaker, house: House) -> Example:
    """Two or three commands in one sentence."""
    rng = speaker.rng
    if rng.random() < 0.45:
        return _same_for_several(speaker, house)
    parts, made, patterns = [], [], []
    for _ in range(2 if rng.random() < 0.8 else 3):
        target = a_target(speaker, house)
        act = action(rng, target.kind)
        pattern, core, _ = speaker.core(act.intent, {**act.slots, "t": target.text}, imperative_only=True)
        parts.append(core)
        patterns.append(pattern)
        made.append((act.tool, {**target.arguments, **act.extra}))
    aimed_at = [arguments.get("name", str(arguments)) for _, arguments in made]
    if len(set(aimed_at)) < len(aimed_at):
        raise NoSuchQuestionError("several")
    joint = rng.choice((" and ", " and ", " and then ", ", then ", ", and ", ", ", " and also "))
    question = polite(rng, joint.join(parts), imperative=True)
    return Example("several", worn(rng, question, question=False), calls(*made), tuple(patterns))


def _same_for_several(speaker: Speaker, house: House) -> Example:
    rng = speaker.rng
    first = pick(speaker, commanded(house))
    act = action(rng, first.kind.word)
    domains = (
        {first.domain} if act.intent not in ("on", "off") else {"light", "switch", "fan", "media_player", "climate"}
    )
    others = [device for device in commanded(house) if device != first and device.domain in domains]
    chosen = [first, *rng.sample(others, min(len(others), 1 if rng.random() < 0.8 else 2))]
    if len(chosen) < 2:
        raise NoSuchQuestionError("several")
    aimed = [targets.named(rng, house, device) for device in chosen]
    joined = (
        ", ".join(one.text for one in aimed[:-1])
        + rng.choice((" and ", " and ", " as well as ", " and also "))
        + aimed[-1].text
    )
    target = Target(joined, {}, first.kind.word, frozenset[str]().union(*(one.names for one in aimed)))
    question, pattern = speaker.say(act.intent, act.slots, names=target.names, t=target.text)
    return Example(
        "several", question, calls(*((act.tool, {**one.arguments, **act.extra}) for one in aimed)), (pattern,)
    )


INDIRECT: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("light_up", "light", ON, {}),
    ("light_up", "light", ON, {}),
    ("lights_out", "light", OFF, {}),
    ("warmer", "climate", "HassClimateSetTemperature", {"temperature": WARMER}),
    ("cooler", "climate", "HassClimateSetTemperature", {"temperature": COOLER}),
)


def indirect(speaker: Speaker, house: House) -> Example:
    """A wish about an area: "it's too dark in the kitchen"."""
    rng = speaker.rng
    intent, kind, tool, extra = rng.choice(INDIRECT)
    areas = [device.area for device in house.devices if device.kind.word == kind]
    if not areas:
        raise NoSuchQuestionError(intent)
    area = rng.choice(areas)
    question, pattern = speaker.say(intent, names=frozenset(area.lower().split()), a=targets.area_said(rng, area))
    return Example("indirect", question, calls((tool, {"area": area, **targets.kind_slots(kind), **extra})), (pattern,))


def climate_area(speaker: Speaker, house: House) -> Example:
    """A temperature for an area: "21 degrees in the bedroom"."""
    rng = speaker.rng
    device = pick(speaker, [device for device in house.devices if device.domain == "climate"])
    value = values.degrees(rng)
    question, pattern = speaker.say(
        "climate_area",
        names=frozenset(device.area.lower().split()),
        a=targets.area_said(rng, device.area),
        v=values.degrees_said(rng, value),
    )
    arguments = {"area": device.area, "domain": "climate", "temperature": value}
    return Example("climate", question, calls(("HassClimateSetTemperature", arguments)), (pattern,))


def timer(speaker: Speaker, _house: House) -> Example:
    """Start or cancel a timer, with a name or without."""
    rng = speaker.rng
    slots = values.duration(rng)
    said_so = values.duration_said(rng, slots)
    name = made_up.thing(rng, TIMER_NAMES)
    roll = rng.random()
    if roll < 0.4:
        question, pattern = speaker.say("timer", {"v": said_so, "for": ""})
        return Example("timer", question, calls(("HassStartTimer", slots)), (pattern,))
    if roll < 0.58:
        question, pattern = speaker.say(
            "timer", {"v": said_so, "for": rng.choice((f"for the {name}", f"for {name}", f"for my {name}"))}
        )
        return Example("timer", question, calls(("HassStartTimer", {**slots, "name": name})), (pattern,))
    if roll < 0.72:
        question, pattern = speaker.say("timer_named", v=said_so, x=name)
        return Example("timer", question, calls(("HassStartTimer", {**slots, "name": name})), (pattern,))
    if roll < 0.86:
        question, pattern = speaker.say("timer_cancel")
        return Example("timer", question, calls(("HassCancelTimer", {})), (pattern,))
    question, pattern = speaker.say("timer_cancel_named", x=name)
    return Example("timer", question, calls(("HassCancelTimer", {"name": name})), (pattern,))


def list_item(speaker: Speaker, house: House) -> Example:
    """Add an item to a list by name, or to the only one there is."""
    rng = speaker.rng
    lists = [device for device in house.devices if device.domain == "todo"]
    item = made_up.thing(rng, ITEMS)
    device = pick(speaker, lists)
    if len(lists) == 1 and rng.random() < 0.3:
        item = made_up.thing(rng, [one for one in ITEMS if " the " not in one and " a " not in one])
        question, pattern = speaker.say("list_add_plain", names=frozenset(item.split()), x=item)
        return Example(
            "list-item", question, calls(("HassListAddItem", {"item": item, "name": device.name})), (pattern,)
        )
    name = targets.lower(rng, device.name)
    where = rng.choice((f"the {name}", f"my {name}", f"our {name}", name))
    question, pattern = speaker.say("list_add", names=frozenset(f"{item} {name}".split()), x=item, l=where)
    return Example("list-item", question, calls(("HassListAddItem", {"item": item, "name": device.name})), (pattern,))
