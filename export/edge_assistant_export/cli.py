"""The command line of the workstation: parse, build, call; no logic of its own.

Results go to standard output, the last line as JSON where that was asked for; the progress bar and errors go to
standard error. A command's module is imported when it is called.
"""

from __future__ import annotations

import json
import re
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from edge_assistant.errors import EdgeAssistantError, ExtraMissingError, RecipeError
from edge_assistant_export import __version__

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from edge_assistant.bundle import AnyManifest, EmbeddingManifest, Manifest, SpeechManifest
    from edge_assistant_export.estimate import Estimate
    from edge_assistant_export.recipe import Recipe

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

_EPILOG = """\
examples:
  edge-assistant-export model mistralai/Mistral-7B-Instruct-v0.3 models/mistral-7b --block-size 128
  edge-assistant-export verify models/mistral-7b --reference mistralai/Mistral-7B-Instruct-v0.3
  edge-assistant-export synth --shape mistral-7b --layers 4 /tmp/small
  edge-assistant-export speech openai/whisper-base models/whisper-base
  edge-assistant-export embedding BAAI/bge-small-en-v1.5 models/bge-small

exit codes:
  0  done    1  the work failed, and nothing was left under the output's name    2  wrong usage    130  interrupted
"""
_MODEL = """\
examples:
  edge-assistant-export model models/home-mini/checkpoint /tmp/home-mini
  edge-assistant-export model mistralai/Mistral-7B-Instruct-v0.3 models/mistral-7b --block-size 128 --cache int8
  edge-assistant-export model ~/Mistral-7B-v0.1 models/mistral-7b --method gptq --calibration some-text.txt
  edge-assistant-export model ~/Mistral-7B-v0.1 models/exact --bits 32

A bundle is a folder whose files a board checks before it loads them. It appears whole or not at all.
"""
_VERIFY = """\
examples:
  edge-assistant-export verify models/mistral-7b --reference mistralai/Mistral-7B-Instruct-v0.3 --text some.txt
  edge-assistant-export verify /tmp/home-mini --reference models/home-mini/checkpoint --record

The last line is one JSON object: mean KL divergence (nats), share of positions with the same likeliest token, and
perplexity of the bundle and of the checkpoint in float32. With --text the checkpoint is read once, layer by layer;
without, once for every token that is sampled. Blank lines in FILE part texts.
"""
_SYNTH = """\
examples:
  edge-assistant-export synth --shape mistral-7b /data/mistral-7b-shape
  edge-assistant-export synth --shape mistral-small --layers 2 /tmp/small
"""
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
        return USAGE if isinstance(error, RecipeError) else FAILED
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
    _add_model(commands)
    _add_verify(commands)
    _add_synth(commands)
    _add_speech(commands)
    _add_embedding(commands)
    return parser


def _add(
    commands: _SubParsersAction[ArgumentParser], name: str, run: Callable[[Namespace], None], summary: str, epilog: str
) -> ArgumentParser:
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


def _add_model(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _add(commands, "model", _model, "export a checkpoint to a bundle", _MODEL)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder, or the id of a model on the hub")
    parser.add_argument("out", type=Path, metavar="OUT", help="the bundle's folder, which must not exist yet")
    add = parser.add_argument
    add("--bits", type=int, default=4, metavar="4|8|32", help="bits of a weight (default: 4); 32 keeps float32")
    add(
        "--block-size",
        type=int,
        default=32,
        metavar="32|64|128",
        help="weights that share a scale (default: 32): 32 is the most exact, 128 the smallest and fastest",
    )
    add("--lm-head-bits", type=int, metavar="4|8", help="bits of the output head (default: as --bits)")
    add(
        "--method",
        default="least-squares",
        metavar="least-squares|maximum|gptq",
        help="how weights are rounded (default: least-squares); gptq is the most exact and reads a calibration text",
    )
    add("--accuracy-level", type=int, default=4, metavar="0|4", help="4 computes in int8 (default), 0 in float32")
    add("--cache", default="float", metavar="float|int8", help="the key/value cache (default: float, that is float32)")
    add(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="text for gptq and for the scales of an int8 cache (default: text that the model samples itself, for "
        "which it is read 127 times: hours for a 7B)",
    )
    add(
        "--sequence-length",
        type=int,
        metavar="N",
        help="longest context, in tokens (default: the checkpoint's, at most 32768)",
    )
    add("--instruct", metavar="VERSION", help="format of a chat: v1, v2, v3, v3-tekken, v7, v7-tekken")
    add("--name", help="what the bundle calls itself (default: as its folder)")
    add("--licence", help="the licence of the weights (default: what the checkpoint says)")
    add("--revision", help="branch, tag or commit on the hub")
    add("--overwrite", action="store_true", help="replace a bundle that is already there")
    add("--json", action="store_true", help="print one JSON object on standard output, all else on standard error")


def _add_verify(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _add(commands, "verify", _verify, "compare a bundle with its checkpoint in float32", _VERIFY)
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    add("--reference", required=True, metavar="CHECKPOINT", help="a folder, or the id of a model on the hub")
    add("--revision", help="branch, tag or commit on the hub")
    add("--text", type=Path, metavar="FILE", help="what to read (default: text that the checkpoint samples)")
    add("--tokens", type=int, default=2048, metavar="N", help="how much of it to read (default: 2048)")
    add("--record", action="store_true", help="write what was measured into the bundle's manifest")


def _add_synth(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _add(commands, "synth", _synth, "write a random checkpoint of a known shape, for benchmarks", _SYNTH)
    add = parser.add_argument
    add("--shape", required=True, metavar="NAME", help="one of mistral-7b, mistral-small, mixtral-8x7b, ...")
    add("--layers", type=int, metavar="N", help="fewer layers than the shape has")
    add("out", type=Path, metavar="OUT", help="the checkpoint's folder, which must not exist yet")


def _add_speech(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _add(
        commands, "speech", _speech, "export a Whisper or Moonshine to a bundle of speech recognition", _SPEECH
    )
    _add_optimum(parser)


def _add_embedding(commands: _SubParsersAction[ArgumentParser]) -> None:
    summary = "export a BERT-like sentence encoder to a bundle of embeddings"
    parser = _add(commands, "embedding", _embedding, summary, _EMBEDDING)
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


def _refuse(parser: ArgumentParser, unknown: Sequence[str]) -> NoReturn:
    """End with exit code 2 and the nearest option that there is."""
    known = set(re.findall(r"--[a-z][a-z-]*", parser.format_help()))
    nearest = get_close_matches(unknown[0].partition("=")[0], known, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    parser.error(f"{unknown[0]} is no option of this command{hint}")


def _recipe(args: Namespace) -> Recipe:
    from edge_assistant_export.recipe import Recipe

    return Recipe(
        name=args.name,
        bits=args.bits,
        block_size=args.block_size,
        lm_head_bits=args.lm_head_bits,
        method=args.method.replace("-", "_"),
        accuracy_level=args.accuracy_level,
        cache=args.cache,
        calibration=args.calibration,
        sequence_length=args.sequence_length,
        instruct=args.instruct,
        licence=args.licence,
    )


def _model(args: Namespace) -> None:
    from edge_assistant_export.checkpoint import Checkpoint
    from edge_assistant_export.estimate import estimate
    from edge_assistant_export.publish import check_output
    from edge_assistant_export.write import BUNDLE_FILES, describe, export

    recipe = _recipe(args)
    check_output(args.out, BUNDLE_FILES, overwrite=args.overwrite)
    report = sys.stderr if args.json else sys.stdout
    with Checkpoint.open(args.checkpoint, revision=args.revision) as checkpoint:
        planned = describe(checkpoint, recipe, args.out.absolute().name)
        needs = estimate(planned)
        print(_plan_text(planned, needs), file=report, flush=True)
        started = time.perf_counter()
        with _progress() as show:
            manifest = export(checkpoint, recipe, args.out, show, overwrite=args.overwrite)
        seconds = time.perf_counter() - started
    print(_summary_text(args.out, manifest, seconds), file=report)
    if args.json:
        needed = {"memory_bytes": needs.memory, "cache_bytes_per_token": needs.cache_per_token}
        print(json.dumps({**_summary_json(args.out, manifest, seconds), **needed}))


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that moves a bar on standard error, told a stage and how much of how much of it is done."""
    from tqdm import tqdm

    with tqdm(unit="", unit_scale=True, disable=None, file=sys.stderr, leave=False) as bar:
        current = ""

        def show(stage: str, done: int, total: int) -> None:
            nonlocal current
            if stage != current:
                current = stage
                bar.reset(total)
                bar.set_description(stage)
            bar.update(done - bar.n)

        yield show


def _plan_text(manifest: Manifest, needs: Estimate) -> str:
    """Return what is about to be made, and what it will need."""
    architecture, how = manifest.architecture, manifest.quantization
    block = f" in blocks of {how.block_size}" if how.block_size else ""
    context = min(architecture.max_positions, 2048)
    return (
        f"{manifest.source.name} ({manifest.source.layout} layout): {architecture.n_layers} layers, "
        f"hidden {architecture.hidden_size}, vocabulary {architecture.vocab_size}\n"
        f"{how.bits} bits a weight{block}, lm_head {how.lm_head_bits}, {manifest.cache.type} cache, "
        f"up to {architecture.max_positions} tokens\n"
        f"The bundle will take {_size(needs.bundle)}. A board needs {_size(needs.memory)} of memory for it, and "
        f"{_size(needs.cache_per_token)} a token of context ({context} tokens: {_size(needs.memory_with(context))})."
    )


def _summary_text(out: Path, manifest: AnyManifest, seconds: float) -> str:
    """Return a table of the files, and how long they took."""
    rows = [(name, entry.bytes) for name, entry in manifest.files.items()]
    total = sum(size for _, size in rows)
    table = "\n".join(f"  {name:<26}{_size(size):>10}" for name, size in (*rows, ("in all", total)))
    rate = total / seconds / 1e6
    return f"{out} is ready after {seconds:.1f} s ({rate:.0f} MB/s written)\n{table}"


def _summary_json(out: Path, manifest: AnyManifest, seconds: float) -> dict[str, object]:
    return {
        "bundle": str(out),
        "name": manifest.name,
        "seconds": round(seconds, 3),
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "files": {name: entry.bytes for name, entry in manifest.files.items()},
    }


def _size(count: int) -> str:
    """Return bytes as a person reads them."""
    for unit, bytes_each in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= bytes_each:
            return f"{count / bytes_each:.2f} {unit}"
    return f"{count} B"


def _verify(args: Namespace) -> None:
    from dataclasses import asdict
    from functools import partial

    from edge_assistant_export.checkpoint import Checkpoint
    from edge_assistant_export.verify import record, verify

    text = None if args.text is None else args.text.read_text(encoding="utf-8")
    with Checkpoint.open(args.reference, revision=args.revision) as checkpoint, _progress() as show:
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


def _synth(args: Namespace) -> None:
    from edge_assistant_export.synth import SHAPES, synthesise

    if args.shape not in SHAPES:
        nearest = get_close_matches(args.shape, SHAPES, n=1, cutoff=0)[0]
        raise RecipeError("shape", args.shape, nearest, tuple(SHAPES))
    print(synthesise(args.shape, args.out, n_layers=args.layers))


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
    print(_summary_text(args.out, manifest, seconds), file=report)
    for name, value in manifest.quality.items():
        print(f"  {name:<26}{value:>10.4g}", file=report)
    if args.json:
        result = _summary_json(args.out, manifest, seconds)
        print(json.dumps({**result, "kind": manifest.kind, "quality": manifest.quality}))
