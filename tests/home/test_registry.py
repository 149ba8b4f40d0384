"""The home, and the text that the model reads of it."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.home.kinds import KINDS, kind_of
from edge_assistant.home.registry import Device, Home, describe

NAME = st.text(st.characters(min_codepoint=33, max_codepoint=0x17F, exclude_categories=["Cc"]), min_size=1, max_size=9)
PROMPT = """\
time: Friday 21:40
kitchen (ground floor):
- light: ceiling light, on, brightness 40 %, color red
- temperature: thermometer, 21.5 °C
hall:
- lock: front door, locked"""


def test_the_prompt():
    home = [
        Device("kitchen", "ceiling light", "light", None, "ground floor", properties={"color": "red", "state": "on"}),
        Device("hall", "front door", "lock", properties={"state": "locked"}),
        Device("kitchen", "thermometer", "sensor", "temperature", "ground floor", properties={"state": 21.5}),
    ]
    kept = Home(home)
    kept.report("kitchen", "ceiling light", "brightness", 40)
    assert describe(kept, "Friday 21:40") == PROMPT


@given(NAME, NAME, st.sampled_from(KINDS))
def test_a_prompt_is_yaml_and_keeps_every_name(area, name, kind):
    """BaseLoader: a name that reads like a number is still a name."""
    parsed = yaml.load(describe([Device(area, name, kind.domain, kind.device_class)]), yaml.BaseLoader)
    assert parsed == {area: [{kind.word: name}]}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.word)
def test_a_kind_is_found_by_home_assistants_names(kind):
    assert kind_of(kind.domain, kind.device_class) is kind


def test_an_unknown_kind_keeps_its_own_word():
    assert kind_of("water_heater").word == "water heater"
    assert kind_of("sensor", "wind_speed").word == "wind speed"


def test_a_device_that_is_replaced_keeps_its_place_and_one_that_is_removed_is_gone():
    home = Home([Device("hall", "lamp", "light"), Device("hall", "fan", "fan")])
    home.report("hall", "lamp", "state", "on")
    assert [device.name for device in home] == ["lamp", "fan"]
    home.remove("hall", "lamp")
    home.remove("hall", "lamp")
    assert len(home) == 1
    with pytest.raises(KeyError):
        home.report("hall", "lamp", "state", "on")
