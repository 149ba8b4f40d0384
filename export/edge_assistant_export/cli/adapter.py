"""`edge-assistant-export adapter`: a LoRA adapter becomes a file that a board uses with a bundle while that runs."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_assistant.device.memory import size
from edge_assistant_export.cli.common import add_command

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction


_EXAMPLES = """\
examples:
  edge-assistant-export model mistralai/Mistral-7B-v0.3 models/mistral-7b --lora-rank 16
  edge-assistant-export adapter ~/my-lora models/my-lora.npz --for models/mistral-7b
  edge-assistant ask --model models/mistral-7b --adapter models/my-lora.npz "is the door locked?"

The bundle must have been made with --lora-rank, of the checkpoint that the adapter was trained on. The file is of use
with this bundle alone: a board refuses it with another, also with one of the same checkpoint in other bits.
"""


def add_adapter(commands: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(commands, "adapter", _adapter, "make a LoRA adapter ready for a bundle", _EXAMPLES)
    add = parser.add_argument
    add("adapter", metavar="ADAPTER", help="a folder that PEFT saved, or the id of one on the hub")
    add("out", type=Path, metavar="OUT", help="the file to write, such as my-lora.npz, which must not exist yet")
    add("--for", dest="bundle", type=Path, required=True, metavar="BUNDLE", help="the folder of the bundle it is for")
    add("--revision", help="branch, tag or commit of the adapter on the hub")
    add("--overwrite", action="store_true", help="replace a file that is already there")


def _adapter(args: Namespace) -> None:
    from edge_assistant_export.hub import locate_adapter
    from edge_assistant_export.lora import convert
    from edge_assistant_export.publish import check_file

    check_file(args.out, overwrite=args.overwrite)  # before the adapter is fetched
    file = convert(locate_adapter(args.adapter, args.revision), args.bundle, args.out, overwrite=args.overwrite)
    about = file.about
    trained = f", trained on {about.source.base_model}" if about.source.base_model else ""
    print(
        f"{args.out} is ready for {about.base_name}: {about.source.name}, rank {about.source.rank}{trained}\n"
        f"  {len(file.factors)} matrices, {size(args.out.stat().st_size)}"
    )
