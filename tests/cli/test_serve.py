from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_assistant import cli
from edge_assistant.cli import serve
from edge_assistant.cli.common import named_adapters
from edge_assistant.config import Settings

pytestmark = pytest.mark.skipif(
    shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") is None,
    reason="needs a broker: sudo apt install mosquitto",
)


@pytest.fixture
def options() -> list[str]:
    """Further options of the server."""
    return []


@pytest.fixture
def server(
    options: list[str], tiny_bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[subprocess.Popen[str]]:
    monkeypatch.setenv("EDGE_ASSISTANT_MQTT__PORT", "0")
    command = [sys.executable, "-m", "edge_assistant.cli", "serve", "--model", str(tiny_bundle().path), *options]
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a child inherits it, and tests may run under nohup
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGHUP, before)
    with process:
        yield process
        process.kill()


def port_of(server: subprocess.Popen[str]) -> int:
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"answering assistant/home/ask at 127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    raise AssertionError(f"it ended with code {server.wait()}")


def test_adapters_that_questions_may_name_are_those_of_the_settings_and_of_their_model(
    tiny_bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_ASSISTANT_MODEL__NAME", str(tiny_bundle().path))
    monkeypatch.setenv("EDGE_ASSISTANT_MODEL__ADAPTERS", '{"kitchen": "/none/kitchen.npz"}')
    assert cli.main(["serve"]) == cli.FAILED
    assert "/none/kitchen.npz" in capsys.readouterr().err
    args = Namespace(model=str(tiny_bundle().path))
    assert named_adapters(args, Settings.load()) == {}


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_with_its_broker(server: subprocess.Popen[str], sent: signal.Signals, code: int) -> None:
    port = port_of(server)
    socket.create_connection(("127.0.0.1", port)).close()
    server.send_signal(sent)
    assert server.wait(timeout=20) == code
    assert server.stderr is not None
    assert "Traceback" not in server.stderr.read()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_further_signals_do_not_keep_it_from_ending_cleanly(server: subprocess.Popen[str]) -> None:
    port = port_of(server)
    for _ in range(50):
        server.terminate()
        time.sleep(0.002)
    assert server.wait(timeout=20) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_signal_before_it_serves_ends_it_cleanly_too(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    os.mkfifo(config)
    command = [sys.executable, "-m", "edge_assistant.cli", "serve", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process, config.open("w"):
        process.terminate()  # it waits for its settings, which nobody writes
        assert process.wait(timeout=20) == 0


def test_a_signal_that_asyncio_loses_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = 0

    async def service(*_: object) -> None:
        nonlocal cancelled
        for _ in range(2):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled += 1
        raise asyncio.CancelledError

    async def terminated() -> None:
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
        await serve._until_terminated(None, None)

    monkeypatch.setattr(serve, "serve_mqtt", service)
    monkeypatch.setattr(serve, "_CANCEL_AGAIN_SECONDS", 0.05)
    before = {sent: signal.getsignal(sent) for sent in (signal.SIGTERM, signal.SIGHUP)}
    try:
        asyncio.run(terminated())
    finally:
        for sent, handler in before.items():
            signal.signal(sent, handler)
    assert cancelled == 2


@pytest.mark.parametrize("options", [["--verbose"]], ids=" ".join)
def test_verbose_logs_every_message_and_its_time(server: subprocess.Popen[str]) -> None:
    port_of(server)
    assert server.stderr is not None
    published = (
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} DEBUG edge_assistant.mqtt.link: Sending PUBLISH .*assistant/home/state"
    )
    server.terminate()  # which publishes that it is offline
    logged = list(server.stderr)
    assert any(re.match(published, line) for line in logged)


def test_a_server_that_is_to_outlive_its_terminal_does(tiny_bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_ASSISTANT_MQTT__PORT", "0")
    command = ["nohup", sys.executable, "-m", "edge_assistant.cli", "serve", "--model", str(tiny_bundle().path)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        port = port_of(process)
        process.send_signal(signal.SIGHUP)
        socket.create_connection(("127.0.0.1", port)).close()
        process.terminate()
        assert process.wait(timeout=20) == 0
