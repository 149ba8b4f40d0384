"""The whole of it in a minute: a model is exported, served, and asked about a small home that is simulated here.

    1. edge-assistant-export makes an int4 bundle of a checkpoint (left out where a bundle is named instead)
    2. edge-assistant serve runs as a process of its own, with a broker of its own on a free port
    3. a simulated home describes its devices over MQTT, reports their states and obeys what is sent to them
    4. a client asks over MQTT; each answer is printed with its latency and speed, and checked

The exit code is 0 when every question was answered as expected and the server ended cleanly.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import aiomqtt

from edge_assistant.bundle import find_model
from edge_assistant.config import Settings, environment
from edge_assistant.errors import DemoError

if TYPE_CHECKING:
    from argparse import Namespace

HOST, NODE, BASE, ANSWERS = "127.0.0.1", "home", "home", "assistant/home/answer"
START_SECONDS = 30
ANSWER_SECONDS = 30

HOME: dict[str, dict[str, Any]] = {
    "kitchen/ceiling light": {"domain": "light", "state": "on", "brightness": 40},
    "kitchen/thermometer": {"domain": "sensor", "device_class": "temperature", "state": 21.5},
    "kitchen/window": {"domain": "binary_sensor", "device_class": "window", "state": "closed"},
    "hall/front door": {"domain": "lock", "state": "locked"},
    "hall/floor lamp": {"domain": "light", "state": "off", "brightness": 0},
    "bedroom/bedside lamp": {"domain": "light", "state": "on", "brightness": 70},
    "bedroom/thermometer": {"domain": "sensor", "device_class": "temperature", "state": 18},
    "bedroom/blind": {"domain": "cover", "device_class": "blind", "state": "open", "position": 100},
}
"""Each device by its topic: how it describes itself, then what it reports."""
DESCRIPTION = ("domain", "device_class")


@dataclass(frozen=True)
class Question:
    """What is asked, a word the answer must hold, and the states the home must have afterwards."""

    text: str
    word: str
    then: Mapping[str, str] = field(default_factory=dict)


QUESTIONS = (
    Question("Is the front door locked?", "is locked"),
    Question("What is the temperature in the kitchen?", "21.5"),
    Question("And in the bedroom?", "18"),
    Question("Which lights are on?", "2 of 3"),
    Question("Turn off the ceiling light", "ceiling light", {"kitchen/ceiling light/state": "off"}),
    Question("Set the bedside lamp to 30 percent", "30", {"bedroom/bedside lamp/brightness": "30"}),
    Question("Close the blind in the bedroom", "blind", {"bedroom/blind/state": "closed"}),
    Question("How many lights are on?", "1 of 3"),
    Question("Turn on the lamp", "Which one: the floor lamp in the hall or the bedside lamp in the bedroom?"),
    Question("The one in the hall", "floor lamp", {"hall/floor lamp/state": "on"}),
)


def demo(args: Namespace) -> int:
    """Run the demo; 1 when a question was not answered as expected."""
    with tempfile.TemporaryDirectory(prefix="edge-assistant-demo-") as folder:
        if args.checkpoint is None:
            model = find_model(args.model, Settings.load().model_folders)
        else:
            model = _export(args.checkpoint, Path(folder) / "home-mini")
        return asyncio.run(_serve_and_ask(model.resolve(), Path(folder)))


def _export(checkpoint: Path, bundle: Path) -> Path:
    command = [str(Path(sys.executable).with_name("edge-assistant-export")), "model", str(checkpoint), str(bundle)]
    print("$", *command, flush=True)
    started = perf_counter()
    if subprocess.run(command, check=False).returncode:
        raise DemoError("the export failed")
    print(f"exported in {perf_counter() - started:.1f} s\n", flush=True)
    return bundle


async def _serve_and_ask(model: Path, folder: Path) -> int:
    port = _free_port()
    async with _server(model, port, folder) as server, _connected(port, server) as client:
        home = SimulatedHome(client)
        await home.report()
        inbox = asyncio.create_task(home.listen(), name="inbox")
        try:
            good = [await _ask(client, home, question) for question in QUESTIONS]
        finally:
            inbox.cancel()
    print(f"\n{sum(good)} of {len(good)} as expected")
    return 0 if all(good) else 1


class SimulatedHome:
    """A few devices that report their states and do what they are told; it also takes in the answers."""

    def __init__(self, client: aiomqtt.Client) -> None:
        """The home and the person who asks share one client."""
        self._client = client
        self.answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.states = {
            f"{BASE}/{device}/{name}": _payload(value)
            for device, properties in HOME.items()
            for name, value in properties.items()
            if name not in DESCRIPTION
        }

    async def report(self) -> None:
        """Say what each device is and how it is."""
        for device, properties in HOME.items():
            meta = {name: properties[name] for name in DESCRIPTION if name in properties}
            await self._client.publish(f"{BASE}/{device}/meta", json.dumps(meta), qos=1, retain=True)
        for topic, state in self.states.items():
            await self._client.publish(topic, state, qos=1, retain=True)

    async def listen(self) -> None:
        """Obey commands by reporting the new state; hand answers on."""
        async for message in self._client.messages:
            topic, payload = str(message.topic), bytes(message.payload).decode()
            if topic.startswith(ANSWERS):
                await self.answers.put(json.loads(payload))
            elif topic.endswith("/set"):
                topic = topic.removesuffix("/set")
                self.states[topic] = payload
                await self._client.publish(topic, payload, qos=1, retain=True)


async def _ask(client: aiomqtt.Client, home: SimulatedHome, question: Question) -> bool:
    """Ask over MQTT, print what came back, and say whether it was as expected."""
    started = perf_counter()
    await client.publish(f"assistant/{NODE}/ask", json.dumps({"text": question.text, "session": "demo"}), qos=1)
    try:
        answer = await asyncio.wait_for(home.answers.get(), ANSWER_SECONDS)
    except TimeoutError:
        raise DemoError(f"no answer within {ANSWER_SECONDS} s to: {question.text}") from None
    latency_ms = 1000 * (perf_counter() - started)
    if answer["status"] != "ok":
        print(
            f"{question.text}\n  NOT AS EXPECTED: {answer['error']['code']}: {answer['error']['message']}", flush=True
        )
        return False
    tokens, decode_s = answer["usage"]["completion_tokens"], answer["timing"]["decode_s"]
    wrong = {topic: home.states.get(f"{BASE}/{topic}") for topic, state in question.then.items()}
    wrong = {topic: state for topic, state in wrong.items() if state != question.then[topic]}
    good = question.word in answer["text"] and not wrong
    speed = f"{tokens / decode_s:5.0f} tokens/s" if decode_s else ""
    print(f"{question.text}\n  {answer['text']:62} {latency_ms:6.0f} ms {speed}", flush=True)
    if not good:
        print(f"  NOT AS EXPECTED: {wrong or f'{question.word!r} is not in the answer'}", flush=True)
    return good


@asynccontextmanager
async def _server(model: Path, port: int, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `edge-assistant serve` until the block ends; it must then end cleanly."""
    config = folder / "config.toml"
    config.write_text(f"[model]\nname = {json.dumps(str(model))}\n[mqtt]\nport = {port}\n", encoding="utf-8")
    state = f"XDG_STATE_HOME={folder / 'state'}"
    others = (f"--unset={name}" for name in environment())  # such as the broker of somebody's real home
    command = ["env", *others, state, sys.executable, "-m", "edge_assistant.cli", "serve", "--config", str(config)]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        code = await process.wait()
    if code:
        raise DemoError(f"the server ended with exit code {code}")


@asynccontextmanager
async def _connected(port: int, server: asyncio.subprocess.Process) -> AsyncIterator[aiomqtt.Client]:
    """Connect once the broker is there, wait until the assistant is online, then hear answers and commands."""
    await _broker_up(port, server)
    async with aiomqtt.Client(HOST, port) as client:
        await client.subscribe(f"assistant/{NODE}/state", qos=1)
        try:
            async with asyncio.timeout(START_SECONDS):
                await anext(message async for message in client.messages if message.payload == b"online")
        except TimeoutError:
            raise DemoError(f"the assistant was not online within {START_SECONDS} s") from None
        await client.unsubscribe(f"assistant/{NODE}/state")
        await client.subscribe(f"{ANSWERS}/+", qos=1)
        await client.subscribe(f"{BASE}/+/+/+/set", qos=1)
        yield client


async def _broker_up(port: int, server: asyncio.subprocess.Process) -> None:
    for _ in range(10 * START_SECONDS):
        if server.returncode is not None:
            raise DemoError("the server did not start")
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except ConnectionError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            await writer.wait_closed()
            return
    raise DemoError(f"no broker within {START_SECONDS} s")


def _payload(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
