"""Messages about the home become the home."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.config import HomeSettings
from edge_assistant.home.registry import as_words, describe
from edge_assistant.home.values import read_value
from edge_assistant.mqtt import feed as feed_module
from edge_assistant.mqtt.feed import HomeFeed
from edge_assistant.mqtt.topics import Topics

TOPICS = Topics("home", "home")


def fed(*messages, **devices):
    feed = HomeFeed(HomeSettings(devices=devices))
    for topic, payload in messages:
        feed.receive(TOPICS.parse_home(f"home/{topic}"), payload if isinstance(payload, bytes) else payload.encode())
    return feed


def meta(domain, **more):
    return json.dumps({"domain": domain, **more})


def test_states_and_descriptions_make_the_home():
    feed = fed(
        ("living_room/ceiling_light/meta", meta("light", floor="ground floor", aliases=["big lamp"])),
        ("living_room/ceiling_light/state", "ON"),
        ("living_room/ceiling_light/brightness", "40"),
        ("hall/door/state", "on"),
        ("hall/door/meta", meta("binary_sensor", device_class="door")),
    )
    assert describe(feed.home) == (
        "living room (ground floor):\n- light: ceiling light, on, brightness 40 %\nhall:\n- door: door, open"
    )
    assert feed.home.get("living room", "ceiling light").aliases == ("big lamp",)


MESSAGES = st.tuples(
    st.sampled_from(["hall/lamp/", "hall/my_lamp/", "hall/my lamp/", "bath/x/", "bath/_/", "_/ /"]),
    st.sampled_from(["meta", "state", "brightness", "set", "\x07"]),
    st.sampled_from(["", "on", "40", meta("light"), meta("lock", name="my lamp", area="hall"), "{", "x" * 2000]),
)


@given(st.lists(MESSAGES, max_size=12))
def test_any_messages_leave_a_home_whose_devices_can_be_commanded(messages):
    feed = fed(*((place + name, payload) for place, name, payload in messages))
    for device in feed.home:
        assert feed.command_topic(device, "state") is not None
        assert device.properties or device.domain != "sensor"
        assert device.area
        assert device.name


def test_a_level_without_a_word_is_no_device():
    assert len(fed(("hall/_/state", "on"), ("_/lamp/state", "on"), (" /_/meta", meta("light"))).home) == 0


def test_a_device_that_only_reports_is_a_sensor():
    assert describe(fed(("bath/scale/state", "71.5")).home) == "bath:\n- sensor: scale, 71.5"


def test_an_empty_description_removes_the_device_and_an_empty_state_the_state():
    lamp = ("hall/lamp/meta", meta("light"))
    assert describe(fed(lamp, ("hall/lamp/state", "on"), ("hall/lamp/state", "")).home) == "hall:\n- light: lamp"
    assert len(fed(lamp, ("hall/lamp/state", "on"), ("hall/lamp/meta", "")).home) == 0


@pytest.mark.parametrize("remembers", [True, False])
def test_a_device_that_was_removed_while_we_were_away_goes_unless_the_broker_has_forgotten_all(remembers):
    lamp, fan = (("hall/lamp/meta", meta("light")), ("hall/fan/meta", meta("fan")))
    feed = fed(lamp, ("hall/lamp/state", "on"), fan, ("hall/scale/state", "7"), porch={"gate": {"domain": "cover"}})
    feed.listen_anew()
    feed.receive(TOPICS.parse_home(f"home/{fan[0]}"), fan[1].encode(), retained=remembers)
    feed.forget_unheard()
    names = [device.name for device in feed.home]
    assert names == (["gate", "fan", "scale"] if remembers else ["gate", "lamp", "fan", "scale"])


def test_the_configuration_describes_and_a_message_goes_before_it():
    lamp = {"hall": {"desk_lamp": {"domain": "light", "floor": "upstairs"}}}
    assert describe(fed(**lamp).home) == "hall (upstairs):\n- light: desk lamp"
    announced = fed(("hall/desk_lamp/meta", meta("switch")), ("hall/desk_lamp/state", "off"), **lamp)
    assert describe(announced.home) == "hall:\n- switch: desk lamp, off"
    withdrawn = fed(("hall/desk_lamp/meta", meta("switch")), ("hall/desk_lamp/meta", ""), **lamp)
    assert describe(withdrawn.home) == "hall (upstairs):\n- light: desk lamp"


def test_a_command_goes_to_the_levels_the_device_reported_on():
    feed = fed(("Living_Room/X1/meta", meta("light", name="ceiling light", area="living room")))
    device = feed.home.get("living room", "ceiling light")
    assert TOPICS.command(feed.command_topic(device, "state")) == "home/Living_Room/X1/state/set"
    configured = fed(**{"living room": {"desk lamp": {"domain": "light"}}})
    device = configured.home.get("living room", "desk lamp")
    assert TOPICS.command(configured.command_topic(device, "state")) == "home/living_room/desk_lamp/state/set"


def test_a_renamed_device_is_listed_once():
    feed = fed(("hall/x/meta", meta("light", name="old")), ("hall/x/meta", meta("light", name="new")))
    assert [device.name for device in feed.home] == ["new"]


def test_of_two_devices_of_one_name_the_first_stays():
    feed = fed(("hall/a/meta", meta("light", name="lamp")), ("hall/b/meta", meta("lock", name="lamp")))
    assert [device.domain for device in feed.home] == ["light"]


def test_a_device_that_takes_the_name_of_another_is_not_listed_by_its_old_one_until_the_other_goes(caplog):
    messages = [
        ("hall/a/meta", meta("light", name="lamp")),
        ("hall/b/meta", meta("light", name="torch")),
        ("hall/b/state", "on"),
        ("hall/b/meta", meta("light", name="lamp")),
        ("hall/b/state", "off"),
    ]
    assert describe(fed(*messages).home) == "hall:\n- light: lamp"
    assert len(caplog.records) == 1
    feed = fed(*messages, ("hall/a/meta", ""))
    assert describe(feed.home) == "hall:\n- light: lamp, off"
    assert feed.command_topic(feed.home.get("hall", "lamp"), "state").device == "b"


@given(st.lists(MESSAGES, max_size=12))
def test_every_device_has_what_it_reported_last(messages):
    said = [(f"{place}{name}".replace("_", " "), payload) for place, name, payload in messages]
    last = {topic: as_words(read_value(payload)) for topic, payload in said if 0 < len(payload) <= 1024}
    feed = fed(*((place + name, payload) for place, name, payload in messages))
    for device in feed.home:
        for name, value in device.properties.items():
            topic = feed.command_topic(device, name)
            assert as_words(value) == last[f"{topic.area}/{topic.device}/{name}".replace("_", " ")]


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(feed_module, "MAX_DEVICES", 3)
    monkeypatch.setattr(feed_module, "MAX_PROPERTIES", 2)
    feed = fed(*((f"hall/lamp{n}/p{m}", "1") for n in range(5) for m in range(4)))
    assert [list(device.properties) for device in feed.home] == [["p0", "p1"]] * 3


def test_whoever_watches_a_device_hears_of_it_alone():
    feed = fed(("hall/lamp/meta", meta("light")), ("hall/fan/meta", meta("fan")))
    with feed.watch(feed.home.get("hall", "lamp")) as changed:
        feed.receive(TOPICS.parse_home("home/hall/fan/state"), b"on")
        assert not changed.is_set()
        feed.receive(TOPICS.parse_home("home/hall/lamp/state"), b"on")
        assert changed.is_set()
