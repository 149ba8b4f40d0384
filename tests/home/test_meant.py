"""What was said is looked at once more before a lock opens."""

from __future__ import annotations

import pytest

from edge_assistant.errors import CallError
from edge_assistant.home.actions import Write
from edge_assistant.home.meant import check_meant


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
    ],
)
def test_what_means_another_thing_opens_no_lock(said, unlock):
    with pytest.raises(CallError, match=r"^I leave the front door as it is\. To open it, say unlock\.$"):
        check_meant(said, unlock)


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
        "have the front door unlocked",
        "turn off the front door",
        "how about the front door?",
        "and what about the front door?",
        "what about the front door?",
        "schlie\u00df die Haust\u00fcr auf",
        "",
    ],
)
def test_what_can_mean_it_opens(said, unlock):
    check_meant(said, unlock)


@pytest.mark.parametrize("value", ["locked", "closed", "open"])
def test_nothing_else_is_held_back(home, value):
    check_meant("shut it", [Write(home.get("garden", "gate"), "state", value)])
    check_meant("shut it", [Write(home.get("hall", "front door"), "state", "locked")])


def test_several_locks_are_said(home, unlock):
    with pytest.raises(CallError, match=r"^I leave the front door and the shed lock as they are\. To open"):
        check_meant("close both", [*unlock, Write(home.get("garden", "shed lock"), "state", "unlocked")])
