"""A broker of our own: Mosquitto as a child, amqtt where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiomqtt
import psutil
import pytest

from edge_assistant.config import MqttSettings
from edge_assistant.errors import BrokerUnreachableError
from edge_assistant.mqtt import broker as broker_module
from edge_assistant.mqtt.broker import Address, open_broker

needs_mosquitto = pytest.mark.skipif(
    not (shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists()),
    reason="Mosquitto is not installed: sudo apt install mosquitto",
)
EMBEDDED = MqttSettings(broker="embedded", port=0)


def children():
    return [child for child in psutil.Process().children() if child.name() == "mosquitto"]


async def test_a_broker_that_is_there_is_taken_as_it_is():
    async with open_broker(MqttSettings(broker="hub.lan", port=8883)) as address:
        assert address == Address("hub.lan", 8883)
        assert str(address) == "hub.lan:8883"


@needs_mosquitto
async def test_our_own_listens_on_loopback_alone_and_ends_with_the_block():
    async with open_broker(EMBEDDED) as address:
        (child,) = children()
        listening = [line.laddr for line in child.net_connections() if line.status == psutil.CONN_LISTEN]
        assert {(line.ip, line.port) for line in listening} == {("127.0.0.1", address.port)}
        async with aiomqtt.Client(address.host, address.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
            await client.publish("a", "b", qos=1)
    assert not children()


@needs_mosquitto
async def test_our_own_starts_though_files_are_made_for_us_alone():
    """As root it runs as another user, who has to read what it is configured with."""
    before = os.umask(0o077)
    try:
        async with open_broker(EMBEDDED):
            assert children()
    finally:
        os.umask(before)
    assert not children()


@needs_mosquitto
async def test_our_own_is_started_again_when_it_is_killed(service, person, scripted_model):
    from edge_assistant.config import Settings

    settings = Settings(
        mqtt={"broker": "embedded", "port": 0, "reconnect_min_seconds": 0.1, "reconnect_max_seconds": 0.5}
    )
    online = await service(scripted_model(lambda text: "yes"), settings)
    (child,) = children()
    child.send_signal(signal.SIGKILL)
    await online.wait(2)
    answer, _ = await (await person(online.address.port)).ask("hi")
    assert answer["text"] == "yes"


@needs_mosquitto
async def test_our_own_is_started_again_though_the_system_refuses_at_first(monkeypatch, caplog):
    monkeypatch.setattr(broker_module, "_RESTART_SECONDS", 0.01)
    async with open_broker(EMBEDDED) as address:
        (child,) = children()
        start = asyncio.create_subprocess_exec
        refusals = [OSError("no more processes"), BrokerUnreachableError(str(address), "not there")]

        async def started(*command, **how):
            if refusals:
                raise refusals.pop()
            return await start(*command, **how)

        monkeypatch.setattr(asyncio, "create_subprocess_exec", started)
        child.kill()
        async with asyncio.timeout(20):
            while refusals or not children():
                await asyncio.sleep(0.01)
    assert [line for line in caplog.messages if "not there yet" in line][1].endswith("no more processes")


HOLD_BROKER = """
import asyncio
from edge_assistant.config import MqttSettings
from edge_assistant.mqtt import broker

async def hold():
    async with broker.open_broker(MqttSettings(broker="embedded", port=0)) as address:
        print(address.port, flush=True)
        await asyncio.Event().wait()

asyncio.run(hold())
"""


@needs_mosquitto
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed: sudo apt install util-linux")
def test_our_own_does_not_outlive_us_when_we_are_killed():
    with subprocess.Popen([sys.executable, "-c", HOLD_BROKER], stdout=subprocess.PIPE) as holder:
        port = int(holder.stdout.readline())
        (child,) = psutil.Process(holder.pid).children()
        assert port in {line.laddr.port for line in child.net_connections()}
        assert child.username() != "root"
        holder.kill()
    try:
        child.wait(timeout=20)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


@needs_mosquitto
async def test_a_port_that_is_taken_is_named_with_the_way_out():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(BrokerUnreachableError, match=rf"127\.0\.0\.1:{port}.*mqtt\.broker"):
            async with open_broker(MqttSettings(broker="embedded", port=port)):
                pass
    assert not children()


async def test_without_any_broker_the_message_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BrokerUnreachableError, match="apt install mosquitto"):
        async with open_broker(EMBEDDED):
            pass


@pytest.mark.skipif(importlib.util.find_spec("amqtt") is None, reason="amqtt is not installed: pip install amqtt")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_amqtt_serves_where_there_is_no_mosquitto(monkeypatch, service, person, scripted_model):
    from edge_assistant.config import Settings

    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    online = await service(scripted_model(lambda text: "yes"), Settings(mqtt={"broker": "embedded", "port": 0}))
    assert not online.address.mqtt5
    someone = await person(online.address.port, protocol=aiomqtt.ProtocolVersion.V311)
    await someone.client.publish("assistant/home/ask", '{"text": "hi", "id": "7"}', qos=1)
    async with asyncio.timeout(10):
        message = await someone.hear("assistant/home/answer/7")
    assert json.loads(message.payload)["text"] == "yes"
