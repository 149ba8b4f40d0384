"""The topics: which we read, which we write, and which nobody may make us write.

assistant/<node>/ask                        questions arrive
assistant/<node>/answer/<id>                answers leave, where a question names no response topic
assistant/<node>/state                      online or offline, retained
assistant/<node>/event                      what happened by itself: a timer ended
<base>/<area>/<device>/<property>           what the home reports
<base>/<area>/<device>/meta                 what a device is
<base>/<area>/<device>/<property>/set       what we command
"""

from __future__ import annotations

from dataclasses import dataclass

ROOT = "assistant"
META = "meta"

_COMMANDING = frozenset({"set", "get", "cmnd", "cmd", "command", "commands", "request"})
"""Levels by which Zigbee2MQTT, Tasmota, ESPHome and the like are commanded."""

_COMMANDING_ROOTS = frozenset({"homeassistant"})
"""First levels under which a message makes or changes devices."""

_MAX_LEVELS = 100
"""Mosquitto ends the connection of whoever publishes on a topic of more than 201."""


@dataclass(frozen=True, slots=True)
class HomeTopic:
    """A topic on which the home reports, its levels as they are."""

    area: str
    device: str
    property_name: str


@dataclass(frozen=True, slots=True)
class Topics:
    """All topics of one node."""

    node: str
    base: str

    @property
    def ask(self) -> str:
        """Where questions arrive."""
        return f"{ROOT}/{self.node}/ask"

    @property
    def state(self) -> str:
        """Where it stands whether we are there."""
        return f"{ROOT}/{self.node}/state"

    @property
    def event(self) -> str:
        """Where we say what happened by itself."""
        return f"{ROOT}/{self.node}/event"

    @property
    def home(self) -> str:
        """The subscription to all that the home reports."""
        return f"{self.base}/+/+/+"

    def answer(self, question_id: str) -> str:
        """Return where a question is answered that names no topic of its own."""
        return f"{ROOT}/{self.node}/answer/{question_id}"

    def command(self, topic: HomeTopic) -> str:
        """Return where a device's property is commanded."""
        return f"{self.base}/{topic.area}/{topic.device}/{topic.property_name}/set"

    def parse_home(self, topic: str) -> HomeTopic | None:
        """Return the parts of a topic on which the home reports, None for any other."""
        if not topic.startswith(f"{self.base}/"):
            return None
        levels = topic[len(self.base) + 1 :].split("/")
        return HomeTopic(*levels) if len(levels) == 3 and all(levels) else None

    def why_no_answer(self, topic: str) -> str | None:
        """Return why an answer must not go to a topic that a question names, None where it may."""
        levels = topic.split("/")
        if not topic or any(mark in topic for mark in "+#\0") or len(levels) > _MAX_LEVELS:
            return f"is empty, or has wildcards or more than {_MAX_LEVELS} levels"
        if topic.startswith("$"):
            return "belongs to the broker"
        if topic == self.base or topic.startswith(f"{self.base}/"):
            return "belongs to the home"
        if levels[0] == ROOT and levels[2:3] != ["answer"]:
            return "is read by an assistant"
        if levels[0] in _COMMANDING_ROOTS or any(level.casefold() in _COMMANDING for level in levels):
            return "commands a device"
        return None
