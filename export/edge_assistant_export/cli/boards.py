"""`edge-assistant-export boards`: the boards that a model can be made for."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING

from edge_assistant.device.memory import size
from edge_assistant_export.cli.common import add_command

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction

    from edge_assistant.device.boards import Target


_EXAMPLES = """\
examples:
  edge-assistant-export boards
  edge-assistant-export boards --json

A name takes the size of the board's memory after a hyphen: pi5-8gb. Without it the smallest is meant.
"""


def add_boards(commands: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(commands, "boards", _boards, "list the boards that a model can be made for", _EXAMPLES)
    parser.add_argument("--json", action="store_true", help="print all that is known of them, one JSON array")


def _boards(args: Namespace) -> None:
    from edge_assistant.device.boards import targets

    if args.json:
        print(json.dumps([_board_json(one) for one in targets()]))
        return
    print(f"{'BOARD':<28}{'ALSO':<18}{'FOR A MODEL':>12}{'BANDWIDTH':>13}  PROCESSOR")
    for one in targets():
        board, variant = one.board, one.variant
        cpu = f"{variant.cores} x {board.cpu}{'' if board.has_dot_products else ', no dot products'}"
        also = f"{board.aliases[0]}-{variant.size}"
        bandwidth = f"{variant.peak_bandwidth / 1e9:.1f} GB/s"
        print(f"{one.name:<28}{also:<18}{size(one.usable_bytes):>12}{bandwidth:>13}  {cpu}")


def _board_json(target: Target) -> dict[str, object]:
    board = target.board.model_dump(mode="json", exclude={"variants"})
    known = {"name": target.name, "title": target.title, "usable_bytes": target.usable_bytes}
    return known | target.variant.model_dump() | {"board": board}
