"""The command line, where everything is put together: parse, build, call; no logic of its own.

A command's module is imported when it is called, so `edge-assistant --help` loads neither numpy nor onnxruntime.
Results go to standard output; errors are one line `edge-assistant: error: ...` on standard error.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

from edge_assistant.cli.parser import build_parser
from edge_assistant.errors import ConfigError, EdgeAssistantError, PackageMissingError

_EXTRAS = {"aiomqtt": "mqtt", "paho": "mqtt"}
"""Packages that not every command needs, and the extra that brings each."""

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; return the exit code that `--help` documents."""
    _open_standard_streams()
    args = build_parser().parse_args(argv)
    try:
        code = _command(args.run)(args)
        sys.stdout.flush()  # here, where a reader that has gone is no error, and not when the interpreter ends
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `| head` closed it: nothing left to flush to
        return OK
    except (EdgeAssistantError, OSError) as error:
        print(f"edge-assistant: error: {error}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigError) else FAILED
    except ImportError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        return INTERRUPTED  # it came while a library was loaded, which made this of it
    return code


def _open_standard_streams() -> None:
    """Give the streams that were closed before we began to the null device: a file would get their numbers else."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def _command(name: str) -> Callable[..., int]:
    """Return the function that `module:function` names; PackageMissingError where an extra is not installed."""
    module, function = name.split(":")
    try:
        run: Callable[..., int] = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        raise PackageMissingError(error.name, _EXTRAS[error.name]) from error
    return run
