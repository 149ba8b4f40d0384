"""What the commands share: a parser each, options for a checkpoint, a progress bar, a summary."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge_assistant.device.memory import size

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from edge_assistant.bundle import AnyManifest
    from edge_assistant_export.checkpoint import Checkpoint


def add_command(
    commands: _SubParsersAction[ArgumentParser], name: str, run: Callable[[Namespace], None], summary: str, epilog: str
) -> ArgumentParser:
    """Add a command and return its parser, which `args.parser` is when it runs; `epilog` has its examples."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_source_options(parser: ArgumentParser) -> None:
    """Add what says, beside its name, which checkpoint is read."""
    add = parser.add_argument
    add("--revision", help="branch, tag or commit of the checkpoint on the hub")
    add("--adapter", metavar="PATH", help="a LoRA adapter to merge into the weights: a folder, or an id on the hub")
    add("--adapter-revision", metavar="REVISION", help="branch, tag or commit of the adapter on the hub")


def open_checkpoint(path_or_hub_id: str, args: Namespace, *, weights: bool = True) -> Checkpoint:
    """Open the checkpoint that the options name, with its weights or without."""
    from edge_assistant_export.checkpoint import Checkpoint

    if args.adapter_revision and args.adapter is None:
        args.parser.error("--adapter-revision says nothing without --adapter")
    return Checkpoint.open(path_or_hub_id, args.revision, args.adapter, args.adapter_revision, weights=weights)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that moves a bar on standard error, told a stage and how much of how much of it is done."""
    from tqdm import tqdm

    # Without smoothing the time left is told from all the time so far: what is done goes at several speeds.
    with tqdm(unit="", unit_scale=True, smoothing=0, disable=None, file=sys.stderr, leave=False) as bar:
        current = ""

        def show(stage: str, done: int, total: int) -> None:
            nonlocal current
            if stage != current:
                current = stage
                bar.reset(total)
                bar.set_description(stage)
            bar.total = total  # it shrinks where a killed export has left something
            bar.update(done - bar.n)

        yield show


def summary_text(out: Path, manifest: AnyManifest, seconds: float) -> str:
    """Return a table of the files, and how long they took."""
    rows = [(name, entry.bytes) for name, entry in manifest.files.items()]
    total = sum(size for _, size in rows)
    table = "\n".join(f"  {name:<26}{size(count):>10}" for name, count in (*rows, ("in all", total)))
    rate = total / seconds / 1e6
    return f"{out} is ready after {seconds:.1f} s ({rate:.0f} MB/s written)\n{table}"


def read_size(text: str) -> int:
    """Return the bytes that a person means: 4.2GB, 900MB or 3.9GiB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG])(i?)B", text.strip(), re.IGNORECASE)
    if found is None:
        raise ArgumentTypeError(f"{text!r} is no size: write it as 4.2GB, 900MB or 3.9GiB")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** ("KMG".index(unit.upper()) + 1))
