"""The command line of the workstation: parse, build, call; no logic of its own.

Results go to standard output, the last line as JSON where that was asked for; the progress bar and errors go to
standard error. What a command needs is imported when it is called.
"""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import NoReturn

from edge_assistant.errors import EdgeAssistantError, RecipeError, UnknownBoardError
from edge_assistant_export import __version__
from edge_assistant_export.cli.adapter import add_adapter
from edge_assistant_export.cli.boards import add_boards
from edge_assistant_export.cli.model import add_model
from edge_assistant_export.cli.synth import add_synth
from edge_assistant_export.cli.through_optimum import add_embedding, add_speech
from edge_assistant_export.cli.verify import add_verify

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

_EPILOG = """\
examples:
  edge-assistant-export model mistralai/Mistral-7B-Instruct-v0.3 models/mistral-7b --for pi5-8gb
  edge-assistant-export verify models/mistral-7b --reference mistralai/Mistral-7B-Instruct-v0.3
  edge-assistant-export adapter ~/my-lora models/my-lora.npz --for models/mistral-7b
  edge-assistant-export synth --shape mistral-7b --layers 4 /tmp/small
  edge-assistant-export speech openai/whisper-base models/whisper-base
  edge-assistant-export embedding BAAI/bge-small-en-v1.5 models/bge-small

exit codes:
  0  done    1  the work failed, and nothing was left under the output's name    2  wrong usage    130  interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; return the exit code that `--help` documents."""
    parser = build_parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        _refuse(args.parser, unknown)
    run: Callable[[Namespace], None] = args.run
    try:
        run(args)
    except KeyboardInterrupt:
        print("edge-assistant-export: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (EdgeAssistantError, OSError) as error:
        print(f"edge-assistant-export: error: {error}", file=sys.stderr)
        return USAGE if isinstance(error, (RecipeError, UnknownBoardError)) else FAILED
    return OK


def build_parser() -> ArgumentParser:
    """Return the parser; what it parses has `run`, the command's function, and `parser`, its own parser."""
    parser = ArgumentParser(
        prog="edge-assistant-export",
        description="Make a checkpoint into a bundle that a board can run.",
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_model(commands)
    add_verify(commands)
    add_adapter(commands)
    add_synth(commands)
    add_boards(commands)
    add_speech(commands)
    add_embedding(commands)
    return parser


def _refuse(parser: ArgumentParser, unknown: Sequence[str]) -> NoReturn:
    """End with exit code 2 and the nearest option that there is."""
    known = set(re.findall(r"--[a-z][a-z-]*", parser.format_help()))
    nearest = get_close_matches(unknown[0].partition("=")[0].lower(), known, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    parser.error(f"{unknown[0]} is no option of this command{hint}")
