"""The composition of all that serves over MQTT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_assistant.assistant import Assistant, LanguageModel, Timer
from edge_assistant.mqtt.actuator import MqttActuator
from edge_assistant.mqtt.bridge import Bridge
from edge_assistant.mqtt.broker import Address, open_broker
from edge_assistant.mqtt.feed import HomeFeed
from edge_assistant.mqtt.link import Link
from edge_assistant.mqtt.protocol import TimerEnded
from edge_assistant.mqtt.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_assistant.config import Settings


async def serve(model: LanguageModel, settings: Settings, on_online: Callable[[Address], None] | None = None) -> None:
    """Answer over MQTT until cancelled; starts a broker where the settings say `embedded`.

    `on_online` gets the broker's address at each connection, once questions are answered.

    Raises:
        BrokerLoginError: the broker refuses the login.
        BrokerUnreachableError: a broker of our own does not start.
        ConfigError: a secret or a certificate cannot be used.
    """
    topics = Topics(settings.assistant.node, settings.mqtt.base)
    feed = HomeFeed(settings.home)
    async with open_broker(settings.mqtt) as address:
        link = Link(settings.mqtt, address, topics)

        async def ring(timer: Timer) -> None:
            await link.deliver(topics.event, TimerEnded(timer).to_payload())

        actuator = MqttActuator(link, feed, topics, settings.assistant.settle_seconds)
        assistant = Assistant(model, feed.home, actuator, settings.assistant, on_timer=ring)
        bridge = Bridge(link, feed, assistant, topics, settings)
        try:
            await bridge.run((lambda: on_online(address)) if on_online else None)
        finally:
            await assistant.close()
