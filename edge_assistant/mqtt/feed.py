"""The home as its topics tell it: states and descriptions come in, `feed.home` is what they make.

A device is what its retained `meta` says, else what the configuration says of it. One that only reports is listed as
a sensor: it can be asked about, never commanded. Underscores in a topic's levels are shown as spaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_assistant.home.kinds import kind_of
from edge_assistant.home.registry import Device, Home, Value
from edge_assistant.home.values import canonical_state, one_line, read_value
from edge_assistant.mqtt.protocol import Meta
from edge_assistant.mqtt.topics import META, HomeTopic

if TYPE_CHECKING:
    from edge_assistant.config import HomeSettings

MAX_DEVICES = 4096
MAX_PROPERTIES = 32
"""Bounds on what a broker can make us keep; what is beyond is passed over."""

_MAX_STATE_BYTES = 1024
_MAX_META_BYTES = 16 * 1024
_UNTOLD = Meta("sensor")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Entry:
    """All that is known of a device: the levels of its topic, who described it, what it reported."""

    area: str
    device: str
    configured: Meta | None = None
    announced: Meta | None = None
    properties: dict[str, Value] = field(default_factory=dict)
    heard: bool = True
    """Whether its description has arrived since the last `listen_anew`."""
    listed_as: tuple[str, str] | None = None
    """Its area and name in the home, None where it is not listed."""
    waits_for: tuple[str, str] | None = None
    """Those that it would have, where another device has them."""

    @property
    def meta(self) -> Meta:
        return self.announced or self.configured or _UNTOLD

    def as_device(self) -> Device:
        meta = self.meta
        kind = kind_of(meta.domain, meta.device_class)
        properties = dict(self.properties)
        if "state" in properties:
            properties["state"] = canonical_state(kind, properties["state"])
        return Device(
            area=meta.area or shown(self.area),
            name=meta.name or shown(self.device),
            domain=meta.domain,
            device_class=meta.device_class,
            floor=meta.floor,
            unit=meta.unit,
            aliases=meta.aliases,
            properties=properties,
        )


class HomeFeed:
    """Keeps a home up to date from the messages about it."""

    def __init__(self, settings: HomeSettings) -> None:
        """List what the configuration lists."""
        self.home = Home()
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._watchers: dict[tuple[str, str], set[asyncio.Event]] = {}
        self._broker_remembers = False
        for area, devices in settings.devices.items():
            for name, told in devices.items():
                entry = _Entry(area.replace(" ", "_"), name.replace(" ", "_"))
                entry.configured = Meta(told.domain, told.device_class, told.floor, told.unit, aliases=told.aliases)
                self._entries[shown(area), shown(name)] = entry
                self._list(entry)

    def listen_anew(self) -> None:
        """Begin to note which descriptions arrive: a new connection gets all that the broker has retained."""
        self._broker_remembers = False
        for entry in self._entries.values():
            entry.heard = False

    def forget_unheard(self) -> None:
        """Remove the devices whose description the broker no longer has: they were removed while we were away.

        A broker that has retained none has lost them all, as one that keeps nothing on disk does when it restarts:
        that says nothing of the home, and all stays as it was.
        """
        if self._broker_remembers:
            for entry in [entry for entry in self._entries.values() if entry.announced and not entry.heard]:
                self.receive(HomeTopic(entry.area, entry.device, META), b"")

    def receive(self, topic: HomeTopic, payload: bytes, *, retained: bool = False) -> None:
        """Take in one message, or what the broker has `retained` of it; one that cannot be read is logged at most."""
        if not (topic.area.isprintable() and topic.device.isprintable() and topic.property_name.isprintable()):
            return
        key = shown(topic.area), shown(topic.device)
        if not all(key):  # a level of underscores alone: there would be no word for it
            return
        entry = self._entries.get(key)
        if entry is None:
            if not payload or len(self._entries) >= MAX_DEVICES:
                return
            entry = _Entry(topic.area, topic.device)
        entry.area, entry.device = topic.area, topic.device
        if topic.property_name == META:
            entry.heard = True
            self._broker_remembers |= retained
        if not self._taken_in(entry, topic, payload):
            return
        if entry.properties or entry.announced or entry.configured:
            self._entries[key] = entry
            self._list(entry)
        else:
            self._entries.pop(key, None)
            self._unlist(entry)

    def command_topic(self, device: Device, property_name: str) -> HomeTopic | None:
        """Return the levels under which a listed device is commanded, None where the home does not list it."""
        entry = next((one for one in self._entries.values() if one.listed_as == (device.area, device.name)), None)
        return HomeTopic(entry.area, entry.device, property_name) if entry else None

    @contextlib.contextmanager
    def watch(self, device: Device) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever something arrives from the device."""
        key, changed = (device.area, device.name), asyncio.Event()
        self._watchers.setdefault(key, set()).add(changed)
        try:
            yield changed
        finally:
            self._watchers[key].discard(changed)
            if not self._watchers[key]:
                del self._watchers[key]

    def _taken_in(self, entry: _Entry, topic: HomeTopic, payload: bytes) -> bool:
        """Put a message into its device's entry; False where it says nothing."""
        if topic.property_name == META:
            return _describe(entry, payload)
        name = shown(topic.property_name)
        if not payload:
            return entry.properties.pop(name, None) is not None
        if len(payload) > _MAX_STATE_BYTES or (
            name not in entry.properties and len(entry.properties) >= MAX_PROPERTIES
        ):
            log.warning("%s/%s: %s of %d bytes passed over", entry.area, entry.device, name, len(payload))
            return False
        value = read_value(payload.decode(errors="replace"))
        if value != "":
            entry.properties[name] = value
        return value != ""

    def _list(self, entry: _Entry) -> None:
        """Show the home what is known of a device, unless another one has its name."""
        device = entry.as_device()
        key = device.area, device.name
        if key != entry.listed_as:
            self._unlist(entry)
            if self.home.get(*key) is not None:
                if key != entry.waits_for:
                    log.warning("%s/%s: another device is called %s in %s too", entry.area, entry.device, *key[::-1])
                entry.waits_for = key
                return
        self.home.put(device)
        entry.listed_as, entry.waits_for = key, None
        for changed in self._watchers.get(key, ()):
            changed.set()

    def _unlist(self, entry: _Entry) -> None:
        """Take a device out of the home; one that waits for its name gets it."""
        freed, entry.listed_as = entry.listed_as, None
        if freed is not None:
            self.home.remove(*freed)
            heir = next((other for other in self._entries.values() if other.waits_for == freed), None)
            if heir:
                self._list(heir)


def shown(level: str) -> str:
    """Return a topic's level as it is shown: `living_room` is the living room."""
    return one_line(level.replace("_", " "))


def _describe(entry: _Entry, payload: bytes) -> bool:
    if not payload:
        entry.announced = None
        entry.properties.clear()
        return True
    if len(payload) > _MAX_META_BYTES:
        log.warning("%s/%s: meta of %d bytes passed over", entry.area, entry.device, len(payload))
        return False
    try:
        entry.announced = Meta.from_payload(payload)
    except ValueError as error:
        log.warning("%s/%s: meta passed over: %s", entry.area, entry.device, error)
        return False
    return True
