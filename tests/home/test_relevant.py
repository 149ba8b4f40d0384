"""What a prompt shows of a home: what the question mentions first, and nothing that it rules out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.home.registry import Device
from edge_assistant.home.relevant import as_many_as_fit, in_home_order, relevant


def shown(home, question, earlier="", most=100):
    return relevant(home, question, earlier, most)


@given(st.integers(0, 200), st.integers(0, 200))
def test_as_many_as_fit_and_not_one_more(count, room):
    assert as_many_as_fit(list(range(count)), lambda chosen: len(chosen) <= room) == min(count, room)


@pytest.mark.parametrize(
    ("question", "first"),
    [
        ("is the front door locked?", "front door"),
        ("close the MAIN ENTRANCE", "front door"),
        ("set the robot free", "robot"),
        ("how warm is it in the bath?", "window"),
        ("put on movie night", "movie night"),
        ("are the blinds down", "blind"),
    ],
)
def test_a_device_that_is_mentioned_comes_first(home, question, first):
    found = shown(home, question)
    assert found.devices[0].name == first
    assert found.mentioned >= 1


def test_all_of_a_mentioned_area_and_kind_come_before_the_rest(home):
    found = shown(home, "turn off the lights in the kitchen")
    assert {device.name for device in found.devices[: found.mentioned]} >= {"ceiling light", "radio", "lamp"}
    assert sorted(map(id, found.devices)) == sorted(map(id, home))


def test_nothing_mentioned_keeps_the_homes_order(home):
    found = shown(home, "hello")
    assert (found.devices, found.mentioned) == (tuple(home), 0)


def test_a_few_of_a_large_home_are_shown(home):
    found = shown(home, "is the front door locked?", most=3)
    assert len(found.devices) == 3
    assert found.devices[0].name == "front door"


def test_all_that_is_mentioned_is_shown(home):
    found = shown(home, "turn off the lights in the kitchen", most=1)
    assert len(found.devices) == found.mentioned > 1


def test_what_was_spoken_of_before_comes_before_the_rest(home):
    found = shown(home, "is it on?", earlier="Turned on the radio.", most=2)
    assert found.devices[0].name == "radio"


def test_chosen_devices_stand_in_the_homes_order(home):
    devices = list(home)
    assert in_home_order(devices, reversed(devices[2:5])) == devices[2:5]


LAMPS = [
    Device("hall", "lamp", "light", properties={"state": "on"}),
    Device("attic", "lamp", "light", properties={"state": "off"}),
    Device("attic", "fan", "fan", properties={"state": "off"}),
]


@pytest.mark.parametrize(
    ("question", "areas"),
    [
        ("is the lamp in the hall on?", {"hall"}),
        ("is the attic lamp on?", {"attic"}),
        ("are the lamps in the hall and the attic on?", {"hall", "attic"}),
        ("is the lamp on?", {"hall", "attic"}),
        ("what is on in the hall?", {"hall", "attic"}),
        ("is the attic fan on?", {"hall", "attic"}),
    ],
)
def test_a_namesake_goes_out_where_the_area_was_said(question, areas):
    assert {device.area for device in shown(LAMPS, question).devices if device.name == "lamp"} == areas
