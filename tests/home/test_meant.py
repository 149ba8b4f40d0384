"""What was said is looked at once more before a lock opens."""

from __future__ import annotations

import pytest

from edge_assistant.errors import CallError
from edge_assistant.home.actions import Write
from edge_assistant.home.meant import Said, check_meant


@pytest.fixture
def unlock(home):
    return [Write(home.get("hall", "front door"), "state", "unlocked")]


@pytest.mark.parametrize(
    "said",
    [
        "shut the front door",
        "Make sure the front door is CLOSED",
        "pull the front door shut",
        "the front door is open, close it",
        "don\u2019t open the front door",
        "never ever unlock the front door",
        "dont open the front door",
        "why is the front door unlocked?",
        "is the front door unlocked?",
        "what does it take to unlock the front door?",
        "open the blind and close the front door",
        "turn off the front door light",
        "turn off the hall front door lamps, please",
        "switch off the main entrance camera",
        "turn off the front door light and the front door",
        "turn off the front door",
        "switch the front door off, please",
        "Turn the hall lamp and the front door off",
        "stop the front door",
        "lock the front door",
    ],
)
def test_what_means_another_thing_opens_no_lock(said, unlock):
    with pytest.raises(CallError, match=r"^I leave the front door as it is\. To open it, say unlock\.$"):
        check_meant(Said(said), unlock)


@pytest.mark.parametrize(
    "said",
    [
        "unlock the front door",
        "open the front door",
        "could you release the front door?",
        "unlock the front door and close the blind",
        "the front door is shut, unlock it",
        "open the closet",
        "open the front door and the shutters",
        "don't leave the front door locked",
        "do you mind unlocking it",
        "is it possible to unlock the front door?",
        "are you able to open the front door",
        "have the front door unlocked",
        "turn off the lamp and unlock the front door",
        "open the front door lock",
        "schlie\u00df die Haust\u00fcr auf",
        "",
    ],
)
def test_what_can_mean_it_opens(said, unlock):
    check_meant(Said(said), unlock)


@pytest.mark.parametrize("value", ["locked", "closed", "open"])
def test_nothing_else_is_held_back(home, value):
    check_meant(Said("shut it"), [Write(home.get("garden", "gate"), "state", value)])
    check_meant(Said("shut it"), [Write(home.get("hall", "front door"), "state", "locked")])


def test_several_locks_are_said(home, unlock):
    with pytest.raises(CallError, match=r"^I leave the front door and the shed lock as they are\. To open"):
        check_meant(Said("close both"), [*unlock, Write(home.get("garden", "shed lock"), "state", "unlocked")])


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("close the blinds", "and the front door"),
        ("is the shed lock locked?", "and the front door"),
        ("shut it", "it"),
        ("turn off the lamp", "and the front door"),
    ],
)
def test_what_was_said_before_counts_where_no_opening_is_said(before, said, unlock):
    with pytest.raises(CallError, match="say unlock"):
        check_meant(Said(said, before), unlock)


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("unlock the shed", "and the front door"),
        ("open the shed", "how about the front door?"),
        ("is it locked?", "open it"),
        ("lock the front door", "undo that"),
        ("shut it", "unlock it"),
    ],
)
def test_opening_it_after_something_else_is_meant(before, said, unlock):
    check_meant(Said(said, before), unlock)


@pytest.mark.parametrize("said", ["yes", "No.", "ok, thanks!", "Hello", "yes please"])
def test_a_bare_yes_does_nothing_where_nothing_was_asked(home, said):
    write = [Write(home.get("garden", "gate"), "position", 30)]
    for earlier in (Said(said), Said(said, "turn on the lamp", "Turned on the lamp.")):
        with pytest.raises(CallError, match=r"^I asked nothing\. Say what to do\.$"):
            check_meant(earlier, write)
    check_meant(Said(said, "open it", "Which one: the gate in the garden?"), write)
    check_meant(Said(f"{said} the gate"), write)


@pytest.mark.parametrize("property_name", ["state", "position"])
def test_a_gate_is_not_opened_for_its_light(home, property_name):
    opening, closing = {"state": ("open", "closed"), "position": (100, 0)}[property_name]
    with pytest.raises(CallError, match=r"^I leave the gate as it is\. To open it, say open\.$"):
        check_meant(Said("turn on the gate light"), [Write(home.get("garden", "gate"), property_name, opening)])
    check_meant(Said("turn on the gate light"), [Write(home.get("garden", "gate"), property_name, closing)])
    for switched in ("turn on the gate", "switch the gate on", "turn on the lamp and the gate"):
        with pytest.raises(CallError, match=r"^I leave the gate as it is\. To open it, say open\.$"):
            check_meant(Said(switched), [Write(home.get("garden", "gate"), property_name, opening)])
    for moved in (
        "turn on the lamp and raise the gate",
        "turn off the lamp and set the gate to 50 %",
        "turn the gate up",
    ):
        check_meant(Said(moved), [Write(home.get("garden", "gate"), property_name, opening)])
    check_meant(Said("turn on the blind"), [Write(home.get("bedroom", "blind"), property_name, opening)])
    check_meant(Said("open the gate"), [Write(home.get("garden", "gate"), property_name, opening)])
    check_meant(Said("turn on the blind light"), [Write(home.get("bedroom", "blind"), property_name, opening)])
