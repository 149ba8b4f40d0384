"""A call becomes checked writes, or an error; never a write to what the home does not list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.errors import CallError, UnknownDeviceError
from edge_assistant.home.actions import COMMANDS, awaited, check_unlocking, followed, plan
from edge_assistant.home.registry import Home
from edge_assistant.home.tools import TOOLS
from edge_assistant.text.messages import ToolCall


def writes(home, tool, **slots):
    return [(w.device.area, w.device.name, w.property_name, w.value) for w in plan(ToolCall(tool, slots), home)]


WORDS = st.one_of(
    st.text(max_size=12), st.sampled_from(["lamp", "kitchen", "light", "hall", "upstairs", "cover", "on"])
)
VALUES = st.one_of(WORDS, st.integers(-5, 300), st.floats(allow_nan=True), st.booleans(), st.none(), st.lists(WORDS))
SLOTS = st.sampled_from(
    ["name", "area", "floor", "domain", "device_class", "brightness", "color", "temperature", "position", "percentage",
     "volume_level", "item", "state", "hours", "nonsense"]
)  # fmt: skip


@given(st.sampled_from([tool.name for tool in TOOLS] + ["Nonsense"]), st.dictionaries(SLOTS, VALUES, max_size=4))
def test_whatever_is_called_only_listed_devices_get_only_what_the_table_allows(tool, slots):
    """Anything else is one of the two named errors."""
    listed = Home([*_every_kind()])
    try:
        planned = plan(ToolCall(tool, slots), listed)
    except (CallError, UnknownDeviceError):
        return
    for write in planned:
        assert any(write.device is device for device in listed)
        rows = [row for row in COMMANDS if row.domain == write.device.domain]
        assert any(row.property_name in {write.property_name, "brightness", "color", "speed"} for row in rows)
        if write.property_name in {"brightness", "position", "speed", "volume"}:
            assert 0 <= write.value <= 100


def _every_kind():
    from edge_assistant.home.kinds import KINDS
    from edge_assistant.home.registry import Device

    return [Device("hall", kind.word, kind.domain, kind.device_class) for kind in KINDS]


@pytest.mark.parametrize(
    ("tool", "slots", "expected"),
    [
        ("HassTurnOn", {"name": "ceiling light"}, [("kitchen", "ceiling light", "state", "on")]),
        ("HassTurnOn", {"name": "Ceiling_Light"}, [("kitchen", "ceiling light", "state", "on")]),
        ("HassTurnOff", {"name": "main entrance"}, [("hall", "front door", "state", "unlocked")]),
        ("HassTurnOn", {"name": "front door"}, [("hall", "front door", "state", "locked")]),
        ("HassTurnOn", {"name": "hall lamp"}, [("hall", "lamp", "state", "on")]),
        ("HassTurnOn", {"name": "lamp", "area": "the Bedroom"}, [("bedroom", "lamp", "state", "on")]),
        ("HassTurnOn", {"name": "light"}, [("kitchen", "ceiling light", "state", "on")]),
        ("HassTurnOff", {"name": "kitchen lamp"}, [("kitchen", "ceiling light", "state", "off")]),
        ("HassTurnOn", {"name": "bulb", "area": "hall"}, [("hall", "lamp", "state", "on")]),
        ("HassMediaPause", {"name": "music"}, [("kitchen", "radio", "state", "paused")]),
        ("HassTurnOff", {"name": "hoover"}, [("garden", "robot", "state", "docked")]),
        (
            "HassTurnOff",
            {"floor": "ground floor", "domain": "light"},
            [("kitchen", "ceiling light", "state", "off"), ("hall", "lamp", "state", "off")],
        ),
        (
            "HassTurnOff",
            {"area": "kitchen"},
            [("kitchen", "ceiling light", "state", "off"), ("kitchen", "radio", "state", "off")],
        ),
        ("HassTurnOff", {"domain": "cover", "device_class": "gate"}, [("garden", "gate", "state", "closed")]),
        ("HassTurnOn", {"domain": "blind"}, [("bedroom", "blind", "state", "open")]),
        (
            "HassLightSet",
            {"name": "lamp", "area": "hall", "brightness": 40, "color": "blue"},
            [("hall", "lamp", "state", "on"), ("hall", "lamp", "brightness", 40), ("hall", "lamp", "color", "blue")],
        ),
        ("HassLightSet", {"name": "ceiling light", "brightness": 0}, [("kitchen", "ceiling light", "state", "off")]),
        ("HassClimateSetTemperature", {"temperature": 22.5}, [("hall", "heating", "target", 22.5)]),
        ("HassSetPosition", {"name": "blind", "position": 30}, [("bedroom", "blind", "position", 30)]),
        ("HassFanSetSpeed", {"percentage": 60}, [("bath", "fan", "state", "on"), ("bath", "fan", "speed", 60)]),
        ("HassSetVolume", {"name": "radio", "volume_level": 10}, [("kitchen", "radio", "volume", 10)]),
        ("HassMediaPause", {}, [("kitchen", "radio", "state", "paused")]),
        ("HassVacuumStart", {"name": "robot"}, [("garden", "robot", "state", "cleaning")]),
        ("HassVacuumReturnToBase", {}, [("garden", "robot", "state", "docked")]),
        ("HassListAddItem", {"item": "milk"}, [("kitchen", "shopping list", "add", "milk")]),
        ("HassTurnOn", {"name": "movie night"}, [("house", "movie night", "state", "on")]),
    ],
)
def test_a_call_becomes_writes(home, tool, slots, expected):
    assert writes(home, tool, **slots) == expected


@pytest.mark.parametrize(
    ("tool", "slots", "words"),
    [
        ("HassTurnOn", {"name": "lamp"}, "the lamp in the hall or the lamp in the bedroom"),
        ("HassTurnOn", {}, "Which device do you mean"),
        (
            "HassTurnOn",
            {"name": "bulb"},
            r"^Which one: the ceiling light in the kitchen, .* or the lamp in the bedroom\?$",
        ),
        ("HassTurnOff", {"area": "garden"}, "Which device do you mean"),
        ("HassTurnOn", {"name": "kitchen window"}, "cannot do that"),
        ("HassTurnOff", {"name": "movie night"}, "cannot do that"),
        ("HassLightSet", {"name": "ceiling light"}, "brightness or color"),
        ("HassLightSet", {"name": "ceiling light", "brightness": 101}, "from 0 to 100"),
        ("HassLightSet", {"name": "ceiling light", "brightness": 10**400}, "from 0 to 100"),
        ("HassLightSet", {"name": "ceiling light", "brightness": True}, "a number"),
        ("HassLightSet", {"name": "ceiling light", "color": "red\nhall:"}, "one line"),
        ("HassClimateSetTemperature", {"temperature": 80}, "from 5 to 35"),
        ("HassClimateSetTemperature", {"temperature": float("nan")}, "from 5 to 35"),
        ("HassClimateSetTemperature", {}, "needs a value for temperature"),
        ("HassSetPosition", {"name": "blind", "position": "half"}, "a number"),
        ("HassTurnOn", {"name": "ceiling light", "colour": "red"}, "takes no colour"),
        (
            "HassTurnOff",
            {"area": "hall", "device_class": "temperature"},
            r"^The heating cannot do that: HassTurnOff is not for a temperature\.$",
        ),
        ("HassTurnOff", {"name": "thermometer"}, r"^Such a device cannot do that: HassTurnOff is not for a temp"),
        ("HassTurnOn", {"name": 7}, "has to be text"),
        ("HassSelfDestruct", {}, "no way to do"),
    ],
)
def test_a_call_that_cannot_be_is_refused_in_words(home, tool, slots, words):
    with pytest.raises(CallError, match=words):
        writes(home, tool, **slots)


@pytest.mark.parametrize(
    ("slots", "words"),
    [
        ({"name": "sauna"}, r"^There is no sauna\.$"),
        ({"name": "front dor"}, r"no front dor\. Did you mean the front door\?$"),
        ({"area": "attic", "domain": "light"}, r"^There is no attic\.$"),
        ({"name": "gate", "area": "kitchen"}, r"no gate in the kitchen\. Did you mean the one in the garden\?$"),
        ({"floor": "ground floor", "domain": "lock", "name": "sauna"}, r"^There is no sauna on the ground floor\.$"),
        ({"area": "kitchen", "domain": "lock"}, r"^There is no lock in the kitchen\.$"),
        ({"area": "kitchn", "domain": "light"}, r"^There is no kitchn\. Did you mean the kitchen\?$"),
        ({"name": "lamp", "floor": "cellar"}, r"^There is no cellar\.$"),
        ({"domain": "siren"}, "no siren"),
    ],
)
def test_what_the_home_does_not_list_is_refused_by_name(home, slots, words):
    with pytest.raises(UnknownDeviceError, match=words):
        writes(home, "HassTurnOff", **slots)


@pytest.mark.parametrize(
    ("domain", "property_name", "wanted", "reported", "expected"),
    [
        ("light", "state", "on", "on", True),
        ("light", "state", "on", "off", False),
        ("light", "state", "on", None, False),
        ("light", "brightness", 40, 39.6, True),
        ("light", "brightness", 40, 50, False),
        ("climate", "target", 21.5, 21.0, False),
        ("climate", "state", "on", "heat", True),
        ("climate", "state", "on", "off", False),
        ("media_player", "state", "on", "paused", True),
        ("media_player", "state", "on", "unavailable", False),
        ("climate", "state", "on", "Unknown", False),
        ("vacuum", "state", "docked", "returning", True),
        ("vacuum", "state", "cleaning", "returning", False),
        ("cover", "state", "closed", "closing", True),
        ("cover", "state", "closed", "opening", False),
    ],
)
def test_a_device_has_followed(make_device, domain, property_name, wanted, reported, expected):
    properties = {} if reported is None else {property_name: reported}
    assert followed(make_device("hall", "it", domain, **properties), property_name, wanted) is expected


def test_a_scene_and_a_list_are_not_waited_for(home):
    assert not awaited(home.get("house", "movie night"), "state")
    assert not awaited(home.get("kitchen", "shopping list"), "add")
    assert awaited(home.get("hall", "lamp"), "state")


@pytest.mark.parametrize("said", ["door", "entrance"])
def test_a_lock_is_not_opened_by_words_that_are_not_its_own(home, said):
    call = ToolCall("HassTurnOff", {"name": said})
    planned = plan(call, home)
    with pytest.raises(CallError, match="Which one: the front door in the hall"):
        check_unlocking(call, planned)


@pytest.mark.parametrize("slots", [{"device_class": "door"}, {"domain": "door", "area": "hall"}])
def test_the_only_lock_is_not_opened_where_no_lock_is_said(make_device, slots):
    call = ToolCall("HassTurnOff", slots)
    planned = plan(call, Home([make_device("hall", "front door", "lock", "locked", "door")]))
    with pytest.raises(CallError, match="Which one: the front door in the hall"):
        check_unlocking(call, planned)


@pytest.mark.parametrize("blank", ["", " ", "_", " _ "])
@pytest.mark.parametrize("slot", ["name", "floor", "domain", "device_class"])
def test_a_slot_without_a_word_says_no_kind(make_device, slot, blank):
    """Of what has no class, a heating and a cover as well, a class without a word was that of all."""
    yard = [make_device("yard", name, name) for name in ("light", "cover", "climate", "vacuum")]
    assert writes(Home(yard), "HassTurnOn", area="yard", **{slot: blank}) == [("yard", "light", "state", "on")]


@pytest.mark.parametrize("tool", ["HassTurnOn", "HassTurnOff"])
@pytest.mark.parametrize(("domain", "device_class"), [("cover", "garage"), ("lock", None), ("vacuum", None)])
def test_what_is_not_everyday_has_to_be_named_even_where_it_is_alone(make_device, tool, domain, device_class):
    alone = Home([make_device("yard", "it", domain, None, device_class)])
    with pytest.raises(CallError, match="Which device do you mean"):
        plan(ToolCall(tool, {}), alone)
    assert plan(ToolCall(tool, {}), Home([make_device("yard", "lamp", "light")]))


@pytest.mark.parametrize("slots", [{}, {"area": "yard"}, {"floor": "ground floor"}])
@pytest.mark.parametrize("device_class", ["garage", "gate", "door"])
def test_a_garage_door_is_not_moved_by_percent_where_it_is_not_named(make_device, slots, device_class):
    entrance = make_device("yard", "it", "cover", "closed", device_class, floor="ground floor")
    with pytest.raises(CallError, match="Which device do you mean"):
        plan(ToolCall("HassSetPosition", {"position": 100, **slots}), Home([entrance]))
    assert plan(ToolCall("HassSetPosition", {"position": 100, "device_class": device_class}), Home([entrance]))
    if slots:
        blind = make_device("yard", "blind", "cover", "open", "blind", floor="ground floor")
        both = Home([entrance, blind])
        assert writes(both, "HassSetPosition", position=100, **slots) == [("yard", "blind", "position", 100)]


@pytest.mark.parametrize("slots", [{"domain": "lock"}, {"device_class": "lock"}, {"domain": "lock", "area": "hall"}])
def test_locks_open_by_their_kind(home, slots):
    call = ToolCall("HassTurnOff", slots)
    check_unlocking(call, plan(call, home))


@pytest.mark.parametrize("said", ["front door", "main entrance", "hall front door", "shed lock", "garden lock"])
def test_a_lock_opens_by_its_own_name_or_where_a_lock_is_said(home, said):
    call = ToolCall("HassTurnOff", {"name": said})
    check_unlocking(call, plan(call, home))


def test_any_words_lock(home):
    call = ToolCall("HassTurnOn", {"name": "door"})
    check_unlocking(call, plan(call, home))
