"""Our end of the connection to the broker: log in, publish, and be there again when the broker is.

aiomqtt does not reconnect by itself, and a client of it is good for one connection: each attempt makes a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from random import SystemRandom
from typing import TYPE_CHECKING

import aiomqtt
from aiomqtt.exceptions import MqttConnectError
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_assistant.config import read_secret
from edge_assistant.errors import BrokerLoginError
from edge_assistant.mqtt.protocol import OFFLINE
from edge_assistant.mqtt.tls import tls_context

if TYPE_CHECKING:
    from edge_assistant.config import MqttSettings
    from edge_assistant.mqtt.broker import Address
    from edge_assistant.mqtt.topics import Topics

MAX_PACKET_BYTES = 16 << 20
"""The broker keeps longer messages to itself (MQTT 5): they would only fill the memory."""

_NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
"""Nagle's algorithm would make every answer wait for 40 to 90 ms."""

_LOGIN_REFUSED = frozenset({0x85, 0x86, 0x87, 0x8A, 0x8C})
"""Client identifier not valid, bad user name or password, not authorized, banned, bad authentication method."""

_UNSUPPORTED_VERSION = 0x84
_NO_WORD = "Operation timed out"
"""What aiomqtt says of a broker that took the connection and did not answer; the system's own words are others."""

_ANSWER_SECONDS = 10.0
_RETRY_SECONDS = 0.2
_ACK_SECONDS = 5.0
"""How long a message waits for the broker's word; aiomqtt does not notice that the connection is gone meanwhile."""
_MOST_LOST = 3
"""Connections that a message may cost: some brokers hang up on whoever publishes where, or what, they do not allow."""

log = logging.getLogger(__name__)


class Link:
    """The connection, which may be down at any time: what is published waits until it is up."""

    def __init__(self, settings: MqttSettings, address: Address, topics: Topics) -> None:
        """Read the secrets; SecretFileError or InvalidValueError where a file cannot be used."""
        self.address = address
        self.name = settings.client_id or f"edge-assistant-{topics.node}"
        """Our name at the broker, which has one connection for each name: the latest."""
        self._settings = settings
        self._topics = topics
        self._protocol = aiomqtt.ProtocolVersion.V5 if address.mqtt5 else aiomqtt.ProtocolVersion.V311
        self._password = read_secret(settings.password_file) if settings.password_file else None
        self._tls = tls_context(settings)
        self._client: aiomqtt.Client | None = None
        self._up = asyncio.Event()
        self._again = asyncio.Lock()

    @property
    def mqtt5(self) -> bool:
        """Whether the broker speaks MQTT 5."""
        return self._protocol is aiomqtt.ProtocolVersion.V5

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[aiomqtt.Client]:
        """Hold one connection.

        Raises:
            BrokerLoginError: the broker refuses the login.
            aiomqtt.MqttError: there is no broker, or it went away.
        """
        async with contextlib.AsyncExitStack() as connection:
            client = await self._connect(connection)
            self._client = client
            self._up.set()
            try:
                yield client
            finally:
                self._client = None
                self._up.clear()

    async def publish(
        self, topic: str, payload: bytes, *, correlation: bytes | None = None, retain: bool = False
    ) -> None:
        """Publish at least once, over this connection or none; aiomqtt.MqttError where it is lost."""
        if self._client is None:
            msg = "not connected"
            raise aiomqtt.MqttError(msg)
        properties = None
        if correlation is not None and self.mqtt5:
            properties = Properties(PacketTypes.PUBLISH)
            properties.CorrelationData = correlation
        await self._client.publish(topic, payload, qos=1, retain=retain, properties=properties, timeout=_ACK_SECONDS)

    async def deliver(self, topic: str, payload: bytes, *, correlation: bytes | None = None) -> None:
        """Publish at least once; where the connection is lost, wait for the next.

        What is lost with `_MOST_LOST` connections is given up, with an error in the log. It is not for the task that
        holds the connection, which would wait for itself.
        """
        await self._up.wait()
        if await self._has_published(topic, payload, correlation, set()):
            return
        lost: set[aiomqtt.Client | None] = set()  # with none yet: another message may have been to blame
        async with self._again:  # one at a time now: so it shows which of them the broker hangs up on
            while len(lost) < _MOST_LOST:
                await self._up.wait()
                if await self._has_published(topic, payload, correlation, lost):
                    return
                await asyncio.sleep(_RETRY_SECONDS)
        log.error("publishing on %s is given up: it has cost %d connections", topic, len(lost))

    async def _has_published(
        self, topic: str, payload: bytes, correlation: bytes | None, lost: set[aiomqtt.Client | None]
    ) -> bool:
        """Publish, and return whether the broker has taken it; a connection that it was lost with is noted."""
        client = self._client
        try:
            await self.publish(topic, payload, correlation=correlation)
        except aiomqtt.MqttError as error:
            log.warning("publishing on %s failed, trying again: %s", topic, error)
            if not isinstance(error, aiomqtt.MqttCodeError):  # else it was never sent
                lost.add(client)
            return False
        return True

    async def subscribe(self, client: aiomqtt.Client) -> None:
        """Subscribe to questions and to the home; BrokerLoginError where the broker does not let us."""
        for topic, qos in ((self._topics.ask, 1), (self._topics.home, 0)):
            for code in await client.subscribe(topic, qos=qos):
                if (code.value if isinstance(code, ReasonCode) else code) >= 0x80:
                    reason = f"it may not read {topic}"
                    raise BrokerLoginError(str(self.address), self._settings.username, reason)

    async def _connect(self, connection: contextlib.AsyncExitStack) -> aiomqtt.Client:
        """Return a client whose connection ends with the stack; raises what `connected` does."""
        client = self._new_client()
        try:
            return await connection.enter_async_context(client)
        except MqttConnectError as error:
            self._judge(error)
            raise
        except aiomqtt.MqttError as error:
            if str(error) == _NO_WORD:
                client._client.disconnect()  # noqa: SLF001 - else its socket stays, and the broker may answer it yet
                self._ask_otherwise()
            raise

    def _judge(self, error: MqttConnectError) -> None:
        """Tell a refused login from what may pass; a broker that does not know MQTT 5 is asked in 3.1.1 next."""
        code = error.rc.value if isinstance(error.rc, ReasonCode) else error.rc
        if code in _LOGIN_REFUSED:
            raise BrokerLoginError(str(self.address), self._settings.username, str(error.rc)) from error
        if code == _UNSUPPORTED_VERSION:
            self._protocol = aiomqtt.ProtocolVersion.V311

    def _ask_otherwise(self) -> None:
        """Take the other version next: old brokers do not answer MQTT 5 at all, a busy one may answer neither."""
        if self.address.mqtt5:
            self._protocol = aiomqtt.ProtocolVersion.V311 if self.mqtt5 else aiomqtt.ProtocolVersion.V5
            log.warning("%s does not answer: the next attempt is in MQTT %s", self.address, self._protocol.name)

    def _new_client(self) -> aiomqtt.Client:
        properties = None
        if self.mqtt5:
            properties = Properties(PacketTypes.CONNECT)
            properties.MaximumPacketSize = MAX_PACKET_BYTES
        return aiomqtt.Client(
            self.address.host,
            self.address.port,
            username=self._settings.username,
            password=self._password,
            identifier=self.name,
            protocol=self._protocol,
            logger=log,  # each packet by its topic and size, never a password or a payload; theirs is silent
            keepalive=self._settings.keepalive_seconds,
            timeout=_ANSWER_SECONDS,
            will=aiomqtt.Will(self._topics.state, OFFLINE, qos=1, retain=True),
            properties=properties,
            tls_context=self._tls,
            socket_options=[_NODELAY],
        )


class Backoff:
    """How long to wait before the next attempt: doubling, with jitter, so that a house full of nodes spreads out."""

    def __init__(self, shortest: float, longest: float) -> None:
        """Both in seconds."""
        self._shortest = shortest
        self._longest = longest
        self._failures = 0
        self._random = SystemRandom()

    def next(self) -> float:
        """Return the seconds to wait after one more failure: half to all of min(longest, shortest * 2^failures)."""
        full = min(self._longest, self._shortest * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return full * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Forget the failures: a connection has lasted."""
        self._failures = 0
