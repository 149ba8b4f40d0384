"""`edge-assistant-export speech` and `embedding`: models that go through optimum."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge_assistant.errors import ExtraMissingError
from edge_assistant_export.cli.common import add_command, summary_text

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from edge_assistant.bundle import EmbeddingManifest, SpeechManifest


_SPEECH = """\
examples:
  edge-assistant-export speech openai/whisper-base models/whisper-base
  edge-assistant-export speech UsefulSensors/moonshine-tiny models/moonshine-tiny --bits 32

Needs the extra `speech`, which brings torch and optimum-onnx. The last lines say how far the bundle is from its
checkpoint on noise: the KL divergence (nats), and the share of tokens of which both think the same the likeliest.
"""


_EMBEDDING = """\
examples:
  edge-assistant-export embedding BAAI/bge-small-en-v1.5 models/bge-small
  edge-assistant-export embedding intfloat/e5-small-v2 models/e5 --query-prompt "query: " --passage-prompt "passage: "
  edge-assistant-export embedding ~/bert-base models/bert --pooling mean --bits 32

Needs the extra `speech`, which brings torch and optimum-onnx. The last lines say how far the bundle is from its
checkpoint: the mean and the least cosine between their vectors of a few sentences.
"""


def add_speech(commands: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(
        commands, "speech", _speech, "export a Whisper or Moonshine to a bundle of speech recognition", _SPEECH
    )
    _add_optimum(parser)


def add_embedding(commands: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command."""
    summary = "export a BERT-like sentence encoder to a bundle of embeddings"
    parser = add_command(commands, "embedding", _embedding, summary, _EMBEDDING)
    _add_optimum(parser)
    add = parser.add_argument
    add("--pooling", metavar="mean|cls", help="what of a text becomes its vector (default: what modules.json says)")
    add("--query-prompt", metavar="TEXT", help="what stands before a question (default: what the checkpoint says)")
    add("--passage-prompt", metavar="TEXT", help="what stands before a text to be found (default: as above)")


def _add_optimum(parser: ArgumentParser) -> None:
    """Add what exports through optimum have in common."""
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="a folder, or the id of a model on the hub")
    add("out", type=Path, metavar="OUT", help="the bundle's folder, which must not exist yet")
    add("--bits", type=int, default=8, metavar="8|32", help="bits of a weight (default: 8); 32 keeps float32")
    add("--name", help="what the bundle calls itself (default: as its folder)")
    add("--licence", help="the licence of the weights (default: what the checkpoint says)")
    add("--revision", help="branch, tag or commit on the hub")
    add("--overwrite", action="store_true", help="replace a bundle that is already there")
    add("--json", action="store_true", help="print one JSON object on standard output, all else on standard error")


def _speech(args: Namespace) -> None:
    from edge_assistant_export.publish import check_output
    from edge_assistant_export.speech import SPEECH_FILES, describe_speech, open_speech

    check_output(args.out, SPEECH_FILES, overwrite=args.overwrite)
    checkpoint = open_speech(args.checkpoint, args.revision)
    manifest = describe_speech(checkpoint, bits=args.bits, name=_name(args), licence=args.licence)
    with _extra(args, "speech"):
        from edge_assistant_export.with_optimum import export_speech
    started = time.perf_counter()
    manifest = export_speech(checkpoint, manifest, args.out, _stage, overwrite=args.overwrite)
    _print_result(args, manifest, time.perf_counter() - started)


def _embedding(args: Namespace) -> None:
    from edge_assistant_export.embedding import EMBEDDING_FILES, EmbeddingRecipe, describe_embedding, open_embedding
    from edge_assistant_export.publish import check_output

    recipe = EmbeddingRecipe(args.bits, args.pooling, args.query_prompt, args.passage_prompt, args.licence)
    check_output(args.out, EMBEDDING_FILES, overwrite=args.overwrite)
    checkpoint = open_embedding(args.checkpoint, args.revision)
    manifest = describe_embedding(checkpoint, recipe, _name(args))
    with _extra(args, "speech"):
        from edge_assistant_export.with_optimum import export_embedding
    started = time.perf_counter()
    manifest = export_embedding(checkpoint, manifest, args.out, _stage, overwrite=args.overwrite)
    _print_result(args, manifest, time.perf_counter() - started)


def _name(args: Namespace) -> str:
    return str(args.name or args.out.absolute().name)


@contextmanager
def _extra(args: Namespace, extra: str) -> Iterator[None]:
    """Import what an extra brings, which may take a while and warn of itself.

    Raises:
        ExtraMissingError: It is not installed.
    """
    import warnings

    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except ImportError as error:
        raise ExtraMissingError(args.parser.prog, extra, error) from error


def _stage(what: str) -> None:
    print(f"edge-assistant-export: {what}", file=sys.stderr, flush=True)


def _print_result(args: Namespace, manifest: SpeechManifest | EmbeddingManifest, seconds: float) -> None:
    """Print the files and how far the bundle is from its checkpoint."""
    report = sys.stderr if args.json else sys.stdout
    print(summary_text(args.out, manifest, seconds), file=report)
    for name, value in manifest.quality.items():
        print(f"  {name:<26}{value:>10.4g}", file=report)
    if args.json:
        files = {name: entry.bytes for name, entry in manifest.files.items()}
        made = {"seconds": round(seconds, 3), "bytes": sum(files.values()), "files": files}
        said = {"kind": manifest.kind, "licence": manifest.licence, "quality": manifest.quality}
        print(json.dumps({"bundle": str(args.out), "name": manifest.name, **said, **made}))
