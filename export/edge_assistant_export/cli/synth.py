"""`edge-assistant-export synth`: a random checkpoint of a known shape."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_assistant_export.cli.common import add_command

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction


_EXAMPLES = """\
examples:
  edge-assistant-export synth --shape mistral-7b /data/mistral-7b-shape
  edge-assistant-export synth --shape mistral-small --layers 2 /tmp/small
"""


def add_synth(commands: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "synth", _synth, "write a random checkpoint of a known shape, for benchmarks", _EXAMPLES
    )
    add = parser.add_argument
    add("--shape", required=True, metavar="NAME", help="one of mistral-7b, mistral-small, mixtral-8x7b, ...")
    add("--layers", type=int, metavar="N", help="fewer layers than the shape has")
    add("out", type=Path, metavar="OUT", help="the checkpoint's folder, which must not exist yet")


def _synth(args: Namespace) -> None:
    from edge_assistant_export.recipe import check_choice
    from edge_assistant_export.synth import SHAPES, synthesise

    check_choice("shape", args.shape, tuple(SHAPES))
    print(synthesise(args.shape, args.out, n_layers=args.layers))
