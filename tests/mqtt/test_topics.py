"""Which topics are ours, and which nobody may make us write to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.mqtt.topics import HomeTopic, Topics

TOPICS = Topics("home", "site/house")
LEVEL = st.text(st.characters(exclude_characters="/+#\0", exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(LEVEL, LEVEL, LEVEL)
def test_what_the_home_reports_is_parsed_and_commanded_at_the_same_place(area, device, property_name):
    topic = f"site/house/{area}/{device}/{property_name}"
    assert TOPICS.parse_home(topic) == HomeTopic(area, device, property_name)
    assert TOPICS.command(HomeTopic(area, device, property_name)) == f"{topic}/set"
    assert TOPICS.parse_home(f"{topic}/set") is None


@given(LEVEL, LEVEL, LEVEL)
def test_no_answer_goes_where_we_read_or_command(area, device, property_name):
    home = HomeTopic(area, device, property_name)
    read = [TOPICS.ask, TOPICS.state, TOPICS.event, f"site/house/{area}/{device}/{property_name}", TOPICS.command(home)]
    assert all(TOPICS.why_no_answer(topic) for topic in read)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "replies/+",
        "replies/#",
        "$SYS/broker",
        "$share/group/x",
        "site/house",
        "site/house/hall/lamp/state",
        "assistant",
        "assistant/kitchen/ask",
        "assistant/home/state",
        "zigbee2mqtt/lamp/set",
        "zigbee2mqtt/lamp/set/state",
        "zigbee2mqtt/bridge/request/device/remove",
        "cmnd/tasmota/POWER",
        "tasmota/CMND/Power",
        "esphome/light/kitchen/command",
        "homeassistant/light/x/config",
        "/" * 100,
    ],
)
def test_refused_response_topics(topic):
    assert TOPICS.why_no_answer(topic)


@pytest.mark.parametrize(
    "topic",
    ["replies/42", "assistant/home/answer/7", "assistant/kitchen/answer/x", "house", "site/houses/a", "settings"],
)
def test_response_topics_that_are_fine(topic):
    assert TOPICS.why_no_answer(topic) is None


@pytest.mark.parametrize(
    "topic", ["site/house/hall/lamp", "site/house/hall//state", "other/hall/lamp/state", "site/house"]
)
def test_other_topics_are_not_the_homes(topic):
    assert TOPICS.parse_home(topic) is None
