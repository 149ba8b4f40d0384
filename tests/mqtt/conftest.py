"""A real Mosquitto on a free port, and the service running against it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_assistant.config import Settings
from edge_assistant.mqtt.service import serve

LOOPBACK = "127.0.0.1"
BASE_CONFIG = "listener {port} 127.0.0.1\nset_tcp_nodelay true\npersistence false\n"


class Mosquitto:
    """A broker of the tests, that can be killed and started again on its port."""

    def __init__(self, program, folder, config):
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            self.port = probe.getsockname()[1]
        self._program = program
        self._path = folder / "mosquitto.conf"
        stay_root = "user root\n" if os.geteuid() == 0 else ""  # else it may not read the files of the tests
        self._path.write_text(BASE_CONFIG.format(port=self.port) + stay_root + config)
        self._process = None

    def start(self):
        self._process = subprocess.Popen([self._program, "-c", self._path], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.port), 1):
                return
            time.sleep(0.01)
        pytest.fail("Mosquitto did not start")

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def mosquitto(tmp_path_factory):
    """Return a function that starts a broker; it takes further lines of configuration."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("Mosquitto is not installed: sudo apt install mosquitto")
    brokers = []

    def start(config="allow_anonymous true\n"):
        folder = tmp_path_factory.mktemp("mosquitto")
        broker = Mosquitto(program, folder, config)
        brokers.append(broker)
        broker.start()
        return broker

    yield start
    for broker in brokers:
        broker.kill()


@pytest.fixture
def settings():
    """Return a function that makes settings for a broker's port; keywords are sections."""

    def make(port, mqtt=(), assistant=(), home=()):
        quick = {"broker": LOOPBACK, "port": port, "reconnect_min_seconds": 0.05, "reconnect_max_seconds": 0.2}
        return Settings(
            mqtt=quick | dict(mqtt), assistant={"settle_seconds": 0.3} | dict(assistant), home={"devices": dict(home)}
        )

    return make


class Online:
    """The running service: where its broker is, and how often it has come online."""

    def __init__(self):
        self.task = None
        self.address = None
        self.times = 0
        self._changed = asyncio.Condition()

    def came_online(self, address):
        self.address = address
        self.times += 1

    async def wait(self, times=1):
        async with asyncio.timeout(20):
            while self.times < times:
                if self.task.done():
                    await self.task
                await asyncio.sleep(0.01)


@pytest.fixture
async def service():
    """Return a function that starts the service and waits until it answers; it ends with the test."""
    running = []

    async def start(model, settings, *, wait=True):
        online = Online()
        online.task = asyncio.create_task(serve(model, settings, online.came_online))
        running.append(online.task)
        if wait:
            await online.wait()
        return online

    yield start
    for task in running:
        task.cancel()
        await asyncio.wait([task])


class Person:
    """Someone at the broker, who asks and listens."""

    def __init__(self, client):
        self.client = client

    async def tell(self, topic, payload="", **how):
        await self.client.publish(topic, payload, qos=1, **how)

    async def hear(self, topic=None):
        """Return the next message on a topic, or on any."""
        async with asyncio.timeout(10):
            async for message in self.client.messages:
                if topic is None or message.topic.matches(topic):
                    return message
        raise AssertionError

    async def ask(self, payload, response_topic=None, correlation=None, hear="assistant/+/answer/+"):
        properties = Properties(PacketTypes.PUBLISH)
        if response_topic is not None:
            properties.ResponseTopic = response_topic
        if correlation is not None:
            properties.CorrelationData = correlation
        await self.tell("assistant/home/ask", payload, properties=properties)
        message = await self.hear(hear)
        return json.loads(message.payload), message


@pytest.fixture
async def person():
    """Return a function that connects someone to a port and subscribes."""
    clients = []
    async with contextlib.AsyncExitStack() as stack:

        async def connect(port, *topics, protocol=aiomqtt.ProtocolVersion.V5, **how):
            client = aiomqtt.Client(LOOPBACK, port, protocol=protocol, **how)
            clients.append(await stack.enter_async_context(client))
            for topic in ("assistant/+/answer/+", *topics):
                await client.subscribe(topic, qos=1)
            return Person(client)

        yield connect
    for client in clients:
        if client._disconnected.done():
            client._disconnected.exception()  # where a test killed the broker, nobody else asks for it
