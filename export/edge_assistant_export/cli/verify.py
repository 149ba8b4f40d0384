"""`edge-assistant-export verify`: how far a bundle is from its checkpoint."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_assistant_export.cli.common import add_command, add_source_options, open_checkpoint, progress

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction


_EXAMPLES = """\
examples:
  edge-assistant-export verify models/mistral-7b --reference mistralai/Mistral-7B-Instruct-v0.3 --text some.txt
  edge-assistant-export verify /tmp/home-mini --reference models/home-mini/checkpoint --record
  edge-assistant-export verify models/tuned --reference mistralai/Mistral-7B-v0.3 --adapter ~/my-lora

The last line is one JSON object: mean KL divergence (nats), share of positions with the same likeliest token, and
perplexity of the bundle and of the checkpoint in float32. With --text the checkpoint is read once, layer by layer;
without, once for every token that is sampled. Blank lines in FILE part texts, of 512 tokens at most.
"""


def add_verify(commands: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(commands, "verify", _verify, "compare a bundle with its checkpoint in float32", _EXAMPLES)
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    add("--reference", required=True, metavar="CHECKPOINT", help="a folder, or the id of a model on the hub")
    add_source_options(parser)
    add("--text", type=Path, metavar="FILE", help="what to read (default: text that the checkpoint samples)")
    add("--tokens", type=int, default=2048, metavar="N", help="how much of it to read (default: 2048)")
    add("--record", action="store_true", help="write what was measured into the bundle's manifest")


def _verify(args: Namespace) -> None:
    from dataclasses import asdict
    from functools import partial

    from edge_assistant_export.small_files import read_text
    from edge_assistant_export.verify import check_record, record, verify

    text = None if args.text is None else read_text(args.text)
    if args.record:
        check_record(args.bundle)
    with open_checkpoint(args.reference, args) as checkpoint, progress() as show:
        result = verify(args.bundle, checkpoint, text, args.tokens, partial(show, "sampling"))
    if args.record:
        record(args.bundle, result)
    lost = result.perplexity / result.reference_perplexity - 1
    print(
        f"{args.bundle} against {args.reference} over {result.tokens} tokens\n"
        f"  KL divergence     {result.kl:10.5f} nats\n"
        f"  same likeliest    {result.top1_agreement:10.2%}\n"
        f"  perplexity        {result.perplexity:10.4f}\n"
        f"  in float32        {result.reference_perplexity:10.4f}   ({lost:+.2%})"
    )
    print(json.dumps(asdict(result)))
