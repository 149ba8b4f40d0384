"""Ways to refer to what is in a home, and the slots each of them means."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_assistant.home.wording import the
from edge_assistant_export.reference_model.homes import BY_WORD
from edge_assistant_export.reference_model.lexicon.words import KIND_WORDS, UNDIRECTED

if TYPE_CHECKING:
    from random import Random

    from edge_assistant.home.registry import Device
    from edge_assistant_export.reference_model.homes import House


@dataclass(frozen=True, slots=True)
class Target:
    """What a command is aimed at: the words for it, its slots, and a device of the kind it is about."""

    text: str
    arguments: dict[str, str]
    kind: str
    names: frozenset[str] = field(default=frozenset())
    """Words that must not be mistyped, since the home's own spelling has to be copied."""


def lower(rng: Random, name: str) -> str:
    """Return a name as it is typed: a capital is often left out."""
    return name.lower() if rng.random() < 0.7 else name


def area_said(rng: Random, area: str) -> str:
    """Return the area with or without its article."""
    return the(lower(rng, area)) if rng.random() < 0.85 else lower(rng, area)


def on_floor(rng: Random, floor: str) -> str:
    """Return where a floor is: `upstairs`, `on the ground floor`, `in the basement`."""
    if floor in UNDIRECTED:
        return floor
    if floor in ("basement", "cellar"):
        return f"in the {floor}"
    return f"on {'the ' if rng.random() < 0.9 else ''}{floor}"


def kind_slots(kind: str) -> dict[str, str]:
    """Return the slots that mean a kind: a domain, and a device class where the kind has one."""
    if kind == "cover":
        return {"domain": "cover"}
    row = BY_WORD[kind]
    return {"domain": row.domain} | ({"device_class": row.device_class} if row.device_class else {})


def holds(device: Device, kind: str) -> bool:
    """Return whether the device is of the kind; every cover is a `cover`, every outlet a `switch`."""
    return device.domain == kind if kind in ("cover", "switch") else device.kind.word == kind


def is_unique(house: House, device: Device) -> bool:
    """Return whether no other device bears the name."""
    return sum(other.name.lower() == device.name.lower() for other in house.devices) == 1


def _says_its_area(device: Device) -> bool:
    return device.area.lower() in device.name.lower()


def named(rng: Random, house: House, device: Device, *, with_area: bool | None = None, door: bool = False) -> Target:
    """Return one device by its name, with its area where that is needed or (by `with_area` or chance) said.

    With `door` a lock may go by its door: the front door lock is what "lock the front door" means.
    """
    if with_area is None:
        with_area = not is_unique(house, device) or (
            rng.random() < 0.25 and device.domain not in ("person", "scene", "todo")
        )
    name = lower(rng, device.name)
    if door and device.domain == "lock" and name.lower().endswith((" door lock", " gate lock")) and rng.random() < 0.5:
        name = name[: -len(" lock")]
    words = frozenset(f"{device.name} {device.area}".lower().split())
    if device.domain == "person":
        return Target(device.name if rng.random() < 0.6 else name, {"name": device.name}, "person", words)
    if not with_area:
        article = rng.choices(("the", "", "my", "our", "that"), (70, 20, 5, 3, 2))[0]
        text = the(name) if article == "the" else f"{article} {name}".strip()
        return Target(text, {"name": device.name}, device.kind.word, words)
    area = lower(rng, device.area)
    if _says_its_area(device):
        text = f"{the(name)} in {the(area)}"
    else:
        text = rng.choice(
            (
                f"{the(name)} in {the(area)}",
                f"{the(name)} in {the(area)}",
                f"the {area} {name}",
                f"{area} {name}",
                f"{name} in {the(area)}",
                f"{name} in {area}",
                f"{the(name)} of {the(area)}",
            )
        )
    return Target(text, {"name": device.name, "area": device.area}, device.kind.word, words)


def plural(rng: Random, house: House, kind: str) -> str:
    """Return a word for many of the kind that is no single device's name."""
    taken = {device.name.lower() for device in house.devices}
    many = KIND_WORDS[kind][1]
    return rng.choice([word for word in many if word not in taken] or many)


def of_area(rng: Random, house: House, area: str, kind: str, *, singular: bool | None = None) -> Target:
    """Return all devices of a kind in an area, even where there is but one."""
    one, many = KIND_WORDS[kind]
    if singular is None:
        singular = rng.random() < 0.3
    word, room = rng.choice(one) if singular else plural(rng, house, kind), lower(rng, area)
    taken = {device.name.lower() for device in house.devices}
    if word in taken or f"{area} {word}".lower() in taken:
        word = f"{many[0]}"
        singular = False
    if singular:
        text = rng.choice(
            (f"the {word} in {the(room)}", f"the {room} {word}", f"{room} {word}", f"{word} in {the(room)}")
        )
    else:
        text = rng.choice(
            (
                f"the {word} in {the(room)}",
                f"the {room} {word}",
                f"{room} {word}",
                f"{word} in {the(room)}",
                f"all {word} in {the(room)}",
                f"all the {word} in {the(room)}",
                f"all {room} {word}",
                f"every {one[0]} in {the(room)}",
                f"each {one[0]} in {the(room)}",
                f"all of the {room} {word}",
            )
        )
    return Target(text, {"area": area, **kind_slots(kind)}, kind, frozenset(area.lower().split()))


def of_floor(rng: Random, house: House, floor: str, kind: str) -> Target:
    """Return all devices of a kind on a floor."""
    word, where = plural(rng, house, kind), on_floor(rng, floor)
    choices = [
        f"the {word} {where}",
        f"all {word} {where}",
        f"all the {word} {where}",
        f"{word} {where}",
        f"every {KIND_WORDS[kind][0][0]} {where}",
        f"the {floor} {word}",
        f"{floor} {word}",
    ]
    return Target(rng.choice(choices), {"floor": floor, **kind_slots(kind)}, kind, frozenset(floor.split()))


def of_all(rng: Random, house: House, kind: str) -> Target:
    """Return every device of a kind in the home."""
    word, single = plural(rng, house, kind), KIND_WORDS[kind][0][0]
    choices = (
        f"the {word}",
        f"the {word}",
        word,
        f"all {word}",
        f"all the {word}",
        f"all {word} in the house",
        f"every {single}",
        f"all of the {word}",
        f"every single {single}",
        f"all my {word}",
        f"the {word} everywhere",
        f"all {word} everywhere",
        f"all our {word}",
        f"each and every {single}",
        f"every {single} in the house",
        f"the {word} in the whole house",
        f"all {word} at home",
    )
    return Target(rng.choice(choices), kind_slots(kind), kind)


def everything(rng: Random, area: str) -> Target:
    """Return all that is in an area."""
    room = the(lower(rng, area))
    text = rng.choice(
        (
            f"everything in {room}",
            f"all devices in {room}",
            f"all in {room}",
            f"everything electric in {room}",
            f"all the devices in {room}",
            f"every device in {room}",
            f"all the things in {room}",
        )
    )
    return Target(text, {"area": area}, "everything", frozenset(area.lower().split()))
