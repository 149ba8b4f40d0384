"""Commands to devices over MQTT: publish to the property's `set`, then watch the property follow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edge_assistant.home.actions import awaited, followed
from edge_assistant.home.registry import Device, Value, as_words

if TYPE_CHECKING:
    from edge_assistant.mqtt.feed import HomeFeed
    from edge_assistant.mqtt.link import Link
    from edge_assistant.mqtt.topics import Topics


class MqttActuator:
    """Commands the devices that a feed lists."""

    def __init__(self, link: Link, feed: HomeFeed, topics: Topics, settle_seconds: float) -> None:
        """`settle_seconds` is how long a device has to follow."""
        self._link = link
        self._feed = feed
        self._topics = topics
        self._settle_seconds = settle_seconds

    async def set(self, device: Device, property_name: str, value: Value) -> bool:
        """Command a device; True once what it reports is what was asked for, False where it is not in time.

        A device that reports the value already is commanded all the same, but not waited for.
        """
        topic = self._feed.command_topic(device, property_name)
        if topic is None:
            return False
        with self._feed.watch(device) as changed:
            try:
                async with asyncio.timeout(self._settle_seconds):
                    await self._link.deliver(self._topics.command(topic), as_words(value).encode())
                    while awaited(device, property_name) and not self._has_followed(device, property_name, value):
                        await changed.wait()
                        changed.clear()
            except TimeoutError:
                return False
        return True

    def _has_followed(self, device: Device, property_name: str, value: Value) -> bool:
        now = self._feed.home.get(device.area, device.name)
        return now is not None and followed(now, property_name, value)
