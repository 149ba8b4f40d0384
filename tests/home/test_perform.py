"""Calls carried out on a home: what is said afterwards is what the home reports."""

from __future__ import annotations

import pytest

from edge_assistant.home.meant import Said
from edge_assistant.home.perform import Performer
from edge_assistant.home.timers import Timers
from edge_assistant.text.messages import ToolCall


class Obedient:
    """Devices that follow at once, but for those in `deaf`; it keeps what was sent."""

    def __init__(self, home, deaf=(), on_the_way=None):
        self.home, self.deaf, self.on_the_way, self.sent = home, set(deaf), on_the_way or {}, []

    async def set(self, device, property_name, value):
        self.sent.append((device.area, device.name, property_name, value))
        if device.name in self.deaf:
            return False
        self.home.report(device.area, device.name, property_name, self.on_the_way.get(value, value))
        return True


async def perform(home, *calls, said="", deaf=(), on_the_way=None, timers=None):
    actuator = Obedient(home, deaf, on_the_way)
    made = [ToolCall(name, slots) for name, slots in calls]
    outcomes = await Performer(home, actuator, timers).perform(made, Said(said))
    return [(outcome.status, outcome.text) for outcome in outcomes], actuator.sent


@pytest.mark.parametrize(
    ("tool", "slots", "said"),
    [
        ("HassTurnOff", {"name": "ceiling light"}, "Turned off the ceiling light."),
        ("HassTurnOff", {"domain": "lock", "area": "hall"}, "Unlocked the front door."),
        ("HassTurnOff", {"name": "blind"}, "Closed the bedroom blind."),
        ("HassTurnOn", {"domain": "light", "floor": "upstairs"}, "Turned on the lamp in the bedroom."),
        (
            "HassLightSet",
            {"name": "lamp", "area": "hall", "brightness": 40, "color": "blue"},
            "Set the lamp in the hall to 40 % and blue.",
        ),
        ("HassClimateSetTemperature", {"temperature": 22.5}, "Set the heating to 22.5 °C."),
        ("HassMediaPause", {}, "Paused the radio."),
        ("HassVacuumStart", {}, "Started the robot."),
        ("HassTurnOn", {"name": "movie night"}, "Activated the movie night."),
        ("HassListAddItem", {"item": "oat milk"}, "Added oat milk to the shopping list."),
        ("HassGetState", {"name": "front door"}, "The front door is locked."),
    ],
)
async def test_done(home, tool, slots, said):
    outcomes, _ = await perform(home, (tool, slots))
    assert outcomes == [("done", said)]


async def test_close_the_door_unlocks_nothing(home):
    outcomes, sent = await perform(home, ("HassTurnOff", {"name": "door"}))
    assert outcomes == [("refused", "Which one: the front door in the hall?")]
    assert not sent


async def test_shut_the_front_door_unlocks_nothing_and_closes_the_blind_all_the_same(home):
    calls = ("HassTurnOff", {"name": "front door"}), ("HassTurnOff", {"name": "blind"})
    outcomes, sent = await perform(home, *calls, said="Shut the front door and the blind")
    assert outcomes[0] == ("refused", "I leave the front door as it is. To open it, say unlock.")
    assert sent == [("bedroom", "blind", "state", "closed")]


async def test_a_device_that_does_not_follow_is_never_called_done(home):
    outcomes, sent = await perform(home, ("HassTurnOff", {"domain": "light"}), deaf={"ceiling light"})
    done = "Turned off the lamp in the hall and the lamp in the bedroom."
    assert outcomes == [("not_followed", f"{done} The ceiling light did not follow: it still reports on.")]
    assert len(sent) == 3


async def test_a_level_that_is_not_followed_names_the_level(home):
    outcomes, _ = await perform(home, ("HassSetPosition", {"name": "blind", "position": 20}), deaf={"blind"})
    assert outcomes == [("not_followed", "The bedroom blind did not follow: it still reports position 100.")]


async def test_a_device_that_never_reports_leaves_it_unknown(home, make_device):
    home.put(make_device("attic", "bulb", "light"))
    outcomes, _ = await perform(home, ("HassTurnOn", {"name": "bulb"}), deaf={"bulb"})
    assert outcomes == [("unknown", "I sent the command to the bulb, but it has not reported whether it followed.")]


async def test_a_cover_on_its_way_is_said_to_be_on_its_way(home):
    outcomes, _ = await perform(home, ("HassTurnOff", {"name": "blind"}), on_the_way={"closed": "closing"})
    assert outcomes == [("done", "The bedroom blind is closing.")]


async def test_of_several_locks_those_on_their_way_are_not_said_to_be_locked(home):
    locks = ("HassTurnOn", {"domain": "lock"})
    outcomes, _ = await perform(home, locks, on_the_way={"locked": "LOCKING"})
    assert outcomes == [("done", "The front door and the shed lock are locking.")]
    home.report("hall", "front door", "state", "locked")
    outcomes, _ = await perform(home, locks, deaf={"front door"}, on_the_way={"locked": "locking"})
    assert outcomes[0][1].startswith("The shed lock is locking.")


async def test_of_several_blinds_those_closed_and_those_closing_are_told_apart(home, make_device):
    home.put(make_device("bath", "blind", "cover", "closed", "blind"))

    class Slow(Obedient):
        async def set(self, device, property_name, value):
            self.on_the_way = {"closed": "closing"} if device.area == "bedroom" else {}
            return await super().set(device, property_name, value)

    call = ToolCall("HassTurnOff", {"domain": "blind"})
    (outcome,) = await Performer(home, Slow(home), None).perform([call], Said(""))
    assert outcome.text == "Closed the bath blind. The bedroom blind is closing."


async def test_of_several_calls_one_refused_stops_no_other(home):
    outcomes, sent = await perform(
        home, ("HassTurnOn", {"name": "sauna"}), ("HassTurnOff", {"name": "radio"}), ("HassTurnOn", {"name": "lamp"})
    )
    assert [status for status, _ in outcomes] == ["refused", "done", "refused"]
    assert sent == [("kitchen", "radio", "state", "off")]


async def test_timers_need_someone_who_rings(home):
    outcomes, _ = await perform(home, ("HassStartTimer", {"minutes": 5}))
    assert outcomes[0][0] == "refused"


async def test_timers_are_set_and_cancelled(home):
    async def ring(timer):
        raise AssertionError

    timers = Timers(ring)
    outcomes, _ = await perform(
        home,
        ("HassStartTimer", {"minutes": 5, "name": "pasta"}),
        ("HassStartTimer", {"hours": 1, "minutes": 30}),
        ("HassCancelTimer", {}),
        ("HassCancelTimer", {"name": "Pasta"}),
        ("HassCancelTimer", {}),
        ("HassCancelTimer", {}),
        ("HassStartTimer", {"seconds": 0}),
        ("HassStartTimer", {"hours": 25}),
        timers=timers,
    )
    assert outcomes == [
        ("done", "Started a 5 minutes timer for pasta."),
        ("done", "Started a 1 hour and 30 minutes timer."),
        ("refused", "There are the 5 minutes timer for pasta and the 1 hour and 30 minutes timer: which one?"),
        ("done", "Cancelled the 5 minutes timer for pasta."),
        ("done", "Cancelled the 1 hour and 30 minutes timer."),
        ("refused", "No timer is running."),
        ("refused", "A timer has to run from a second to 24 hours."),
        ("refused", "A timer has to run from a second to 24 hours."),
    ]
    await timers.close()
