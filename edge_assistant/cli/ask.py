"""`ask` and `chat`: no broker; what would be commanded is printed, and the home pretends to follow."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from edge_assistant.assistant import Answer, Ask, Assistant, new_id
from edge_assistant.cli.common import load_model, settings_and_model
from edge_assistant.errors import EdgeAssistantError, InputEncodingError
from edge_assistant.home.actions import awaited
from edge_assistant.home.registry import Device, Home, Value, as_words
from edge_assistant.home.snapshot import read_home
from edge_assistant.mqtt.protocol import ErrorAnswer
from edge_assistant.text.response_format import read_schema_file

if TYPE_CHECKING:
    from argparse import Namespace

_SESSION = "chat"


class DryRun:
    """An actuator that commands nothing: the home's record follows, so that later questions see the change."""

    def __init__(self, home: Home, *, quiet: bool) -> None:
        """`quiet` leaves the printing out."""
        self._home = home
        self._quiet = quiet

    async def set(self, device: Device, property_name: str, value: Value) -> bool:
        """Print what would have been sent."""
        if not self._quiet:
            print(f"  not sent: {device.area}/{device.name}/{property_name} = {as_words(value)}")
        if awaited(device, property_name):
            self._home.report(device.area, device.name, property_name, value)
        return True


def ask(args: Namespace) -> int:
    """Answer each text on its own; 1 when one of them could not be answered."""
    schema = read_schema_file(args.schema) if args.schema else None
    asks = (Ask(text, schema=schema) for text in args.texts or _readable(sys.stdin) if text.strip())
    return _converse(args, asks, as_json=args.json, stream=args.stream)


def chat(args: Namespace) -> int:
    """Answer what is typed, turn after turn, until the input ends."""
    asks = (Ask(text, session=_SESSION) for text in _readable(_typed()) if text)
    return _converse(args, asks, as_json=False, stream=True)


def _converse(args: Namespace, asks: Iterable[Ask], *, as_json: bool, stream: bool) -> int:
    settings, path = settings_and_model(args)
    home = read_home(args.state) if args.state else Home()
    with load_model(args, settings, path) as model, asyncio.Runner() as runner:
        assistant = Assistant(model, home, DryRun(home, quiet=as_json), settings.assistant)
        # Questions are waited for outside the event loop, which would keep Ctrl-C from ending the wait.
        answered = [runner.run(_answer(assistant, question, as_json=as_json, stream=stream)) for question in asks]
    return 0 if all(answered) else 1


async def _answer(assistant: Assistant, question: Ask, *, as_json: bool, stream: bool) -> bool:
    """Print the answer to a question, or why there is none; return whether there is one."""
    try:
        if stream and not as_json:
            await assistant.answer(question, on_text=_write)
            print()
        else:
            _show(await assistant.answer(question), as_json=as_json)
    except EdgeAssistantError as error:
        if as_json:
            print(ErrorAnswer.of(question.id or new_id(), error).to_payload().decode(), flush=True)
        else:
            print(f"edge-assistant: error: {error}", file=sys.stderr)
        return False
    return True


def _show(answer: Answer, *, as_json: bool) -> None:
    print(answer.to_json() if as_json else answer.text, flush=True)


def _write(text: str) -> None:
    print(text, end="", flush=True)


def _readable(lines: Iterable[str]) -> Iterator[str]:
    """Yield what is read, without the space around it; InputEncodingError where it is not the text it should be."""
    try:
        for line in lines:
            yield line.strip()
    except UnicodeDecodeError as error:
        raise InputEncodingError(error.encoding, error.object[error.start]) from error


def _typed() -> Iterator[str]:
    if sys.stdin.isatty():
        import readline  # noqa: F401 - input() then edits lines and remembers them
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
