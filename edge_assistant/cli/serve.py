"""`serve`: answer over MQTT until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Final

from edge_assistant.cli.common import load_model, named_adapters, settings_and_model
from edge_assistant.mqtt.service import serve as serve_mqtt

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from edge_assistant.config import Settings
    from edge_assistant.text.chat import ChatModel

_CANCEL_AGAIN_SECONDS: Final = 30.0
"""Longer than any goodbye takes, shorter than systemd waits."""


def serve(args: Namespace) -> int:
    """Serve until SIGTERM or SIGHUP, which end it cleanly, or Ctrl-C; the log goes to standard error."""
    level, time = (logging.DEBUG, "%(asctime)s ") if args.verbose else (logging.INFO, "")  # systemd has its own times
    logging.basicConfig(level=level, format=f"{time}%(levelname)s %(name)s: %(message)s")
    _when_terminated(_leave)
    settings, path = settings_and_model(args)
    with load_model(args, settings, path, named_adapters(args, settings)) as model:
        asyncio.run(_until_terminated(model, settings))
    return 0


async def _until_terminated(model: ChatModel, settings: Settings) -> None:
    service = asyncio.create_task(serve_mqtt(model, settings), name="serve")
    loop = asyncio.get_running_loop()

    def end() -> None:
        service.cancel()
        # Before Python 3.12 `wait_for` loses one that comes with what it waits for.
        loop.call_later(_CANCEL_AGAIN_SECONDS, end)

    _when_terminated(lambda: loop.call_soon_threadsafe(end))
    try:
        await asyncio.wait([service])
    except asyncio.CancelledError:  # Ctrl-C: the service still says goodbye before its broker ends
        service.cancel()
        await asyncio.wait([service])
        raise
    finally:
        _when_terminated(_leave)
    if not service.cancelled():
        await service


def _when_terminated(end: Callable[[], object]) -> None:
    """Have the first SIGTERM or SIGHUP call this; those that follow are ignored, so that the end is a clean one."""

    def ended(*_: object) -> None:
        for sent in signals:
            signal.signal(sent, signal.SIG_IGN)
        end()

    # One that is ignored stays so, as nohup has it: the service is to outlive its terminal.
    signals = [sent for sent in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(sent) is not signal.SIG_IGN]
    for sent in signals:
        signal.signal(sent, ended)


def _leave() -> None:
    raise SystemExit(0)
