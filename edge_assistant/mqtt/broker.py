"""The broker: one that is there already, or one of our own on loopback.

Ours is Mosquitto, started as a child with a generated configuration: loopback only, anonymous, nothing kept on disk.
Where no Mosquitto is installed amqtt serves in its place, in this process; it speaks MQTT 3.1.1 only, so that
answers go to `assistant/<node>/answer/<id>` and there are no response topics.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_assistant.errors import BrokerUnreachableError

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from edge_assistant.config import MqttSettings

EMBEDDED = "embedded"
LOOPBACK = "127.0.0.1"

_CONFIG = """\
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
persistence false
max_queued_messages 10000
log_dest stderr
log_type error
log_type warning
"""
_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_RESTART_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker listens, and whether it speaks MQTT 5."""

    host: str
    port: int
    mqtt5: bool = True

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@contextlib.asynccontextmanager
async def open_broker(settings: MqttSettings) -> AsyncIterator[Address]:
    """Hold the broker that the settings name; one of our own starts here and ends with the block.

    Raises:
        BrokerUnreachableError: a broker of our own does not start.
    """
    if settings.broker != EMBEDDED:
        yield Address(settings.broker, settings.port)
        return
    port = _claim_port(settings.port)
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is not None:
        async with _Mosquitto(program, port):
            yield Address(LOOPBACK, port)
    elif importlib.util.find_spec("amqtt") is not None:
        async with _amqtt(port):
            yield Address(LOOPBACK, port, mqtt5=False)
    else:
        raise BrokerUnreachableError(
            f"{LOOPBACK}:{port}", "Mosquitto is not installed", "run `sudo apt install mosquitto`, or set mqtt.broker"
        )


class _Mosquitto:
    """Mosquitto as a child; one that dies is started again."""

    def __init__(self, program: str, port: int) -> None:
        self._program = program
        self._port = port
        self._folder = tempfile.TemporaryDirectory(prefix="edge-assistant-broker-")
        Path(self._folder.name).chmod(0o711)  # another user may have to read what lies there
        self._config = Path(self._folder.name) / "mosquitto.conf"

    async def __aenter__(self) -> None:
        self._config.write_text(_CONFIG.format(port=self._port), encoding="utf-8")
        self._config.chmod(0o644)  # whatever the umask says: there is no secret in it
        try:
            self._process = await self._start()
        except BaseException:
            self._folder.cleanup()
            raise
        self._keeper = asyncio.create_task(self._keep(), name="mosquitto")

    async def __aexit__(self, *exception: object) -> None:
        self._keeper.cancel()
        await asyncio.wait([self._keeper])
        await _stop(self._process)  # not the keeper's to do: one that is cancelled at once never ran
        self._folder.cleanup()

    async def _start(self) -> Process:
        """Start it and wait until it listens. A session of its own keeps Ctrl-C from ending it before us."""
        command = (*_ended_with_us(), self._program, "-c", str(self._config))
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, start_new_session=True)
        listening = asyncio.create_task(self._listening(), name="mosquitto starts")
        ended = asyncio.create_task(process.wait(), name="mosquitto ends")
        try:
            await asyncio.wait([listening, ended], timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not listening.done():
                reason = await self._why(process) if ended.done() else f"not there after {_START_SECONDS:.0f} s"
                raise BrokerUnreachableError(f"{LOOPBACK}:{self._port}", f"Mosquitto did not start: {reason}")
        except BaseException:
            await _stop(process)
            raise
        finally:
            listening.cancel()
            ended.cancel()
        return process

    async def _listening(self) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection(LOOPBACK, self._port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return

    async def _why(self, process: Process) -> str:
        said = (await process.stderr.read()).decode(errors="replace") if process.stderr else ""
        return " ".join(said.split()) or f"exit code {process.returncode}"

    async def _keep(self) -> None:
        """Pass on what it says; start it again when it dies."""
        while True:
            while line := await _line(self._process):
                log.warning("mosquitto: %s", line.decode(errors="replace").rstrip())
            log.error("mosquitto ended with code %s: starting it again", await self._process.wait())
            while self._process.returncode is not None:
                await asyncio.sleep(_RESTART_SECONDS)
                try:
                    self._process = await self._start()
                except (BrokerUnreachableError, OSError) as error:  # such as too many processes: that may pass
                    log.warning("Mosquitto is not there yet: %s", error)


def _ended_with_us() -> tuple[str, ...]:
    """Return what stands before a command that the kernel is to end where we are killed and cannot."""
    setpriv = shutil.which("setpriv")  # of util-linux; Python's own way, preexec_fn, may hang beside threads
    if setpriv is None:
        return ()
    # The kernel forgets it where the child changes its user, as Mosquitto does for root: so that is changed before.
    return (setpriv, *_as_its_user(), "--pdeathsig", "TERM", "--")


def _as_its_user() -> tuple[str, ...]:
    """Return the options of setpriv that leave root for the user that Mosquitto would take, where there is one."""
    try:
        user = pwd.getpwnam("mosquitto")
    except KeyError:
        return ()
    return (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups") if os.geteuid() == 0 else ()


async def _line(process: Process) -> bytes:
    return await process.stderr.readline() if process.stderr else b""


async def _stop(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def _amqtt(port: int) -> AsyncIterator[None]:
    from amqtt.broker import Broker  # noqa: PLC0415 - an extra that few need
    from amqtt.errors import AMQTTError  # noqa: PLC0415

    listener = {"type": "tcp", "bind": f"{LOOPBACK}:{port}"}
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    broker = Broker({"listeners": {"default": listener}, "plugins": plugins})
    try:
        await broker.start()
    except AMQTTError as error:
        raise BrokerUnreachableError(f"{LOOPBACK}:{port}", f"amqtt did not start: {error}") from error
    try:
        yield
    finally:
        await broker.shutdown()


def _claim_port(port: int) -> int:
    """Return the port, a free one for 0, after making sure that nobody listens on it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise BrokerUnreachableError(
                f"{LOOPBACK}:{port}",
                f"a broker of our own cannot take the port ({error.strerror})",
                'where a broker runs already set mqtt.broker = "127.0.0.1", or else another mqtt.port',
            ) from error
        return int(probe.getsockname()[1])
