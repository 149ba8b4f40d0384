"""States in words: one sentence for which, how many, any and all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.home.kinds import KINDS
from edge_assistant.home.registry import Device
from edge_assistant.home.resolve import resolve
from edge_assistant.home.wording import phrase, states, which

TWO_OPEN = "2 of 3 windows are open: the kitchen window and the bath window, but not the bedroom window."
THREE_ON = "3 of 4 devices are on: the ceiling light, the radio and the heating, but not the lamp in the hall."
TWO_MEASURE = (
    "The 2 temperature sensors report 21 °C on average: "
    "the thermometer in the bath 23 °C and the thermometer in the bedroom 19 °C."
)

NAMES = st.text(st.characters(categories=["Ll"]), min_size=1, max_size=6)


@given(
    st.lists(st.tuples(NAMES, st.sampled_from(["open", "closed"])), min_size=2, max_size=8, unique_by=lambda p: p[0]),
    st.sampled_from(["open", "closed"]),
)
def test_every_window_in_the_state_is_named_and_counted(windows, wanted):
    home = [Device("hall", name, "binary_sensor", "window", properties={"state": state}) for name, state in windows]
    said = states(home, home, wanted)
    matching = [name for name, state in windows if state == wanted]
    start = {0: "None of the", len(windows): "Both" if len(windows) == 2 else "All"}.get(
        len(matching), str(len(matching))
    )
    assert said.startswith(start)
    listed = said.partition(", but not")[0].partition(": ")[2]
    assert all(phrase(device, home) in listed for device in home if device.state == wanted)


def test_what_is_on_in_different_ways_is_not_said_to_be_in_the_first_ones(make_device):
    players = [
        make_device("hall", name, "media_player", state) for name, state in (("tv", "playing"), ("hi-fi", "paused"))
    ]
    assert states(players, players, "on") == "Both media players are on: the tv and the hi-fi."
    thermostats = [
        make_device(area, "heating", "climate", state) for area, state in (("hall", "heat"), ("bath", "cool"))
    ]
    assert states(thermostats, thermostats, "on").startswith("Both thermostats are on: ")
    assert states(thermostats[:1] * 2, thermostats, "on").startswith("Both thermostats are set to heat: ")


@pytest.mark.parametrize(
    ("values", "figure"),
    [((12000, 345.6), "12346 W"), ((999.9, 0.2), "1000 W"), ((0.5, 0.25), "0.75 W"), ((-9000, -8000), "-17000 W")],
)
def test_a_sum_is_written_in_full(make_device, values, figure):
    meters = [make_device(area, "meter", "sensor", value, "power") for area, value in zip("ab", values, strict=True)]
    assert states(meters, meters).startswith(f"The 2 power sensors report {figure} in all: ")


def test_measures_in_different_units_are_not_added(make_device):
    meters = [
        make_device("hall", "meter", "sensor", 900, "power"),
        make_device("cellar", "heat pump", "sensor", 2, "power", unit="kW"),
    ]
    assert states(meters, meters) == "The meter reports 900 W; the heat pump reports 2 kW."


@pytest.mark.parametrize("lost", ["unavailable", "unknown"])
def test_a_device_that_cannot_be_reached_counts_as_nothing(make_device, lost):
    windows = [
        make_device(area, "window", "binary_sensor", state, "window")
        for area, state in (("hall", "closed"), ("kitchen", "closed"), ("bath", lost))
    ]
    assert states(windows, windows, "open") == f"None of the 2 windows is open. The bath window is {lost}."
    assert states(windows, windows, "closed").startswith("Both windows are closed: the hall window and the kitchen")
    assert states(windows, windows, "closed").endswith(f" The bath window is {lost}.")
    assert states(windows, windows, lost) == f"1 of 3 windows is {lost}: the bath window."


def test_a_player_that_cannot_be_reached_is_not_on(make_device):
    players = [
        make_device("hall", name, "media_player", state) for name, state in (("tv", "off"), ("hi-fi", "unknown"))
    ]
    assert states(players, players, "on") == "The tv is off. The hi-fi is unknown."


def test_a_sensor_that_cannot_be_reached_measures_nothing(make_device):
    sensors = [
        make_device(area, "sensor", "sensor", state, "temperature")
        for area, state in (("hall", 20), ("kitchen", 22), ("bath", "unavailable"))
    ]
    said = states(sensors, sensors)
    assert said.startswith("The 2 temperature sensors report 21 °C on average: ")
    assert said.endswith(" The sensor in the bath is unavailable.")
    assert states(sensors[2:], sensors) == "The sensor in the bath reports unavailable."


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.word)
def test_every_kind_can_be_spoken_of_alone_together_and_silent(kind):
    state = kind.states[0] if kind.states else 7
    one = Device("hall", "first", kind.domain, kind.device_class, properties={"state": state})
    two = Device("hall", "second", kind.domain, kind.device_class, properties={"state": state})
    mute = Device("hall", "third", kind.domain, kind.device_class)
    for devices in ([one], [one, two], [one, two, mute], [mute], [mute, mute]):
        said = states(devices, [one, two, mute])
        assert said.endswith(".")
        assert "None" not in said
        assert all(device.name in said.casefold() for device in devices)


@pytest.mark.parametrize(
    ("target", "wanted", "said"),
    [
        ({"device_class": "window"}, "open", TWO_OPEN),
        ({"device_class": "window"}, "on", TWO_OPEN),
        ({"device_class": "window"}, "closed", "1 of 3 windows is closed: the bedroom window."),
        (
            {"device_class": "window"},
            None,
            "Of 3 windows, 2 are open (the kitchen window and the bath window) and 1 is closed (the bedroom window).",
        ),
        ({"domain": "lock"}, "locked", "1 of 2 locks is locked: the front door."),
        ({"domain": "light"}, "on", "1 of 3 lights is on: the ceiling light."),
        ({"area": "bath"}, "open", "The bath window is open."),
        ({"name": "front door"}, "locked", "The front door is locked."),
        ({"name": "ceiling light"}, None, "The ceiling light is on, brightness 40 %, color red."),
        ({"name": "heating"}, None, "The heating is set to heat, temperature 20.5 °C, target 21 °C."),
        ({"name": "shopping list"}, None, "The shopping list has 5 items."),
        ({"domain": "person"}, "home", "Anna is home."),
        ({"device_class": "temperature"}, None, TWO_MEASURE),
        ({"area": "bath", "device_class": "temperature"}, None, "The thermometer in the bath reports 23 °C."),
        ({"area": "hall", "domain": "sensor", "device_class": "temperature"}, None, "The heating reports 20.5 °C."),
        (
            {"area": "garden"},
            None,
            "The garden gate is closed; the shed lock is unlocked; the robot is docked, battery 80 %.",
        ),
        ({}, "playing", "The radio is playing, volume 30 %."),
        ({"floor": "ground floor"}, "on", THREE_ON),
    ],
)
def test_sentences(home, target, wanted, said):
    assert states(resolve(home, target), home, wanted) == said


def test_a_device_that_has_not_reported_is_not_passed_over(home, make_device):
    home.put(make_device("cellar", "cellar lock", "lock"))
    said = states(resolve(home, {"domain": "lock"}), home, "locked")
    assert said == "1 of 2 locks is locked: the front door. The cellar lock has not reported yet."


@pytest.mark.parametrize(
    ("area", "name", "said"),
    [
        ("hall", "heating", "the heating"),
        ("hall", "lamp", "the lamp in the hall"),
        ("bath", "window", "the bath window"),
        ("kitchen", "kitchen window", "the kitchen window"),
        ("hall", "Anna", "Anna"),
    ],
)
def test_a_device_is_named_so_that_it_can_be_told_apart(home, area, name, said):
    assert phrase(home.get(area, name), home) == said


def test_a_possessive_takes_no_article(make_device):
    lamps = [make_device("Ben's room", "Ben's lamp", "light"), make_device("Ben's room", "spot", "light")]
    assert [phrase(lamp, lamps) for lamp in lamps] == ["Ben's lamp", "the spot"]


def test_a_question_back_lists_few_devices_and_asks_by_the_word_for_many(home):
    lights = resolve(home, {"domain": "light"})
    assert which(lights[1:], "lamp") == "Which one: the lamp in the hall or the lamp in the bedroom?"
    assert which(lights * 2, "lamp") == "Which lamp do you mean?"
