"""What the question mentions goes into the prompt first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.home.relevant import as_many_as_fit, ranked


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
    order, mentioned = ranked(home, question)
    assert order[0].name == first
    assert mentioned >= 1


def test_all_of_a_mentioned_area_and_kind_come_before_the_rest(home):
    order, mentioned = ranked(home, "turn off the lights in the kitchen")
    assert {device.name for device in order[:mentioned]} >= {"ceiling light", "radio", "lamp"}
    assert sorted(map(id, order)) == sorted(map(id, home))


def test_nothing_mentioned_keeps_the_homes_order(home):
    order, mentioned = ranked(home, "hello")
    assert (order, mentioned) == (list(home), 0)
