"""A home that the tests of this room share."""

from __future__ import annotations

import pytest

from edge_assistant.home.registry import Device, Home


def device(area, name, domain, state=None, device_class=None, **more):
    reported = {} if state is None else {"state": state}
    told = {key: more.pop(key) for key in ("floor", "unit", "aliases") if key in more}
    return Device(area, name, domain, device_class, properties={**reported, **more}, **told)


@pytest.fixture
def make_device():
    return device


@pytest.fixture
def home():
    return Home(
        [
            device("kitchen", "ceiling light", "light", "on", brightness=40, color="red", floor="ground floor"),
            device("kitchen", "kitchen window", "binary_sensor", "open", "window", floor="ground floor"),
            device("kitchen", "radio", "media_player", "playing", volume=30, floor="ground floor"),
            device("kitchen", "shopping list", "todo", 5, floor="ground floor"),
            device("hall", "lamp", "light", "off", floor="ground floor"),
            device("hall", "front door", "lock", "locked", aliases=("main entrance",), floor="ground floor"),
            device("hall", "heating", "climate", "heat", temperature=20.5, target=21, floor="ground floor"),
            device("hall", "Anna", "person", "home", floor="ground floor"),
            device("bedroom", "lamp", "light", "off", floor="upstairs"),
            device("bedroom", "blind", "cover", "open", "blind", position=100, floor="upstairs"),
            device("bedroom", "window", "binary_sensor", "closed", "window", floor="upstairs"),
            device("bedroom", "thermometer", "sensor", 19.0, "temperature", floor="upstairs"),
            device("bath", "window", "binary_sensor", "open", "window", floor="upstairs"),
            device("bath", "thermometer", "sensor", 23.0, "temperature", floor="upstairs"),
            device("bath", "fan", "fan", "off", speed=0, floor="upstairs"),
            device("garden", "gate", "cover", "closed", "gate"),
            device("garden", "shed lock", "lock", "unlocked"),
            device("garden", "robot", "vacuum", "docked", battery=80),
            device("house", "movie night", "scene"),
        ]
    )
