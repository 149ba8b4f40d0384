"""What the bridge adds: the round trip of a question over a real broker, less the model's own time.

`edge-assistant serve` runs in a process of its own with an embedded Mosquitto; a client here asks one question after
the other, over MQTT 5 with a response topic, while the home reports states. Of each answer the time of the model
(`timing.model_s`) and of waiting for devices (`timing.act_s`) is taken off. The last line is one JSON object.

    python benchmarks/mqtt.py --model models/home-mini --questions 300 --states-per-second 50
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from time import perf_counter
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_assistant.bundle import MANIFEST_FILE

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine

HOST = "127.0.0.1"
NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
REPLIES = "benchmark/replies"
WARM_UP = 5
START_SECONDS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/home-mini"), metavar="DIR", help="the bundle")
    parser.add_argument("--questions", type=int, default=300, metavar="N")
    parser.add_argument("--devices", type=int, default=12, metavar="N", help="devices of the home")
    parser.add_argument("--states-per-second", type=float, default=50, metavar="N", help="reports while it is asked")
    args = parser.parse_args()
    if not (args.model / MANIFEST_FILE).is_file():
        parser.error(f"{args.model} holds no bundle: make one with edge-assistant-export model")
    print(json.dumps(asyncio.run(measure(args))))


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    async with served(args.model.resolve()) as (port, _), connected(port) as client:
        for number in range(args.devices):
            await client.publish(f"home/room_{number % 4}/lamp_{number}/meta", '{"domain": "light"}', 1, retain=True)
        reports = asyncio.create_task(report_states(client, args.devices, args.states_per_second))
        await client.subscribe(REPLIES, qos=1)
        times = [await ask(client) for _ in range(WARM_UP + args.questions)][WARM_UP:]
        reports.cancel()
    added = sorted(total - own for total, own in times)
    return {
        "benchmark": "mqtt",
        "questions": args.questions,
        "states_per_second": args.states_per_second,
        "added_ms": {
            "median": round(1000 * statistics.median(added), 2),
            "p99": round(1000 * added[int(0.99 * (len(added) - 1))], 2),
            "max": round(1000 * added[-1], 2),
        },
        "round_trip_ms": round(1000 * statistics.median(total for total, _ in times), 2),
        "model_ms": round(1000 * statistics.median(own for _, own in times), 2),
        "machine": machine("aiomqtt", "paho-mqtt"),
    }


async def ask(client: aiomqtt.Client) -> tuple[float, float]:
    """Return the seconds of one round trip, and those that the model and the devices took of it."""
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = REPLIES
    started = perf_counter()
    await client.publish("assistant/home/ask", '{"text": "is lamp 3 on?", "max_tokens": 8}', 1, properties=properties)
    message = await anext(message async for message in client.messages if message.topic.matches(REPLIES))
    total = perf_counter() - started
    answer = json.loads(message.payload)
    if answer["status"] != "ok":
        sys.exit(f"{answer['error']['code']}: {answer['error']['message']}")
    return total, answer["timing"]["model_s"] + answer["timing"]["act_s"]


async def report_states(client: aiomqtt.Client, devices: int, per_second: float) -> None:
    number = 0
    while per_second:
        number += 1
        device = number % devices
        topic = f"home/room_{device % 4}/lamp_{device}/state"
        await client.publish(topic, "on" if number % 2 else "off", retain=True)
        await asyncio.sleep(1 / per_second)


@contextlib.asynccontextmanager
async def served(model: Path) -> AsyncIterator[tuple[int, int]]:
    """Run the service on a free port until the block ends; give the port and the process."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as state:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edge_assistant.cli", "serve", "--model", str(model)),
            env={**os.environ, "EDGE_ASSISTANT_MQTT__PORT": str(port), "XDG_STATE_HOME": state},
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            yield port, process.pid
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[aiomqtt.Client]:
    """Connect once the broker is there, and wait until the assistant is online."""
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection(HOST, port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                break
    protocol = aiomqtt.ProtocolVersion.V5
    async with aiomqtt.Client(HOST, port, protocol=protocol, socket_options=[NODELAY]) as client:
        await client.subscribe("assistant/home/state", qos=1)
        async with asyncio.timeout(START_SECONDS):
            await anext(message async for message in client.messages if message.payload == b"online")
        yield client


if __name__ == "__main__":
    main()
