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
from typing import TYPE_CHECKING, NoReturn, cast

from edge_assistant.errors import EdgeAssistantError, ExtraMissingError, RecipeError, UnknownBoardError
from edge_assistant_export import __version__

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from edge_assistant.bundle import AnyManifest, EmbeddingManifest, Manifest, SpeechManifest
    from edge_assistant.device.boards import Target
    from edge_assistant_export.checkpoint import Checkpoint
    from edge_assistant_export.estimate import Estimate
    from edge_assistant_export.recipe import Recipe
    from edge_assistant_export.target import Given

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

_EPILOG = """\
examples:
  edge-assistant-export model mistralai/Mistral-7B-Instruct-v0.3 models/mistral-7b --for pi5-8gb
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
  edge-assistant-export model mistralai/Mixtral-8x7B-Instruct-v0.1 models/mixtral --block-size 128 --dry-run
  edge-assistant-export model ~/Mistral-7B-v0.1 models/mistral-7b --for pi5-8gb --sequence-length 8192
  edge-assistant-export model mistralai/Mistral-7B-v0.3 models/tuned --adapter ~/my-lora

--for chooses what is not given so that the bundle fits the board, says why, and refuses what cannot fit. `boards` lists
them. A bundle is a folder whose files a board checks before it loads them. It appears whole or not at all. What was
killed or interrupted goes on where it was when the same command is run again. An adapter is a folder with
adapter_config.json and adapter_model.safetensors, as PEFT saves a plain LoRA; it is merged into the weights before they
are rounded, and calibration reads the merged model. Name the checkpoint that the adapter was trained on.
"""
_VERIFY = """\
examples:
  edge-assistant-export verify models/mistral-7b --reference mistralai/Mistral-7B-Instruct-v0.3 --text some.txt
  edge-assistant-export verify /tmp/home-mini --reference models/home-mini/checkpoint --record
  edge-assistant-export verify models/tuned --reference mistralai/Mistral-7B-v0.3 --adapter ~/my-lora

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


_BOARDS = """\
examples:
  edge-assistant-export boards
  edge-assistant-export boards --json

A name takes the size of the board's memory after a hyphen: pi5-8gb. Without it the smallest is meant.
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
    _add_model(commands)
    _add_verify(commands)
    _add_synth(commands)
    _add_boards(commands)
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
    add("--for", dest="target", metavar="BOARD", help="choose what fits a board, such as pi5-8gb or orin-nano-8gb")
    add("--bits", type=int, metavar="4|8|32", help="bits of a weight (default: 4); 32 keeps float32")
    add(
        "--block-size",
        type=int,
        metavar="32|64|128",
        help="weights that share a scale (default: 32): 32 is the most exact, 128 the smallest and fastest",
    )
    add("--lm-head-bits", type=int, metavar="4|8", help="bits of the output head (default: as --bits)")
    add(
        "--method",
        metavar="least-squares|maximum|gptq",
        help="how weights are rounded (default: least-squares); gptq is the most exact and reads a calibration text",
    )
    add(
        "--zero-points",
        action="store_const",
        const=True,
        help="give each block a zero point: nearer to the checkpoint, for 4 more bits a block",
    )
    add("--accuracy-level", type=int, metavar="0|4", help="4 computes in int8 (default), 0 in float32")
    add("--cache", metavar="float|int8", help="the key/value cache (default: float, that is float32)")
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
    _add_source_options(parser)
    add("--overwrite", action="store_true", help="replace a bundle that is already there")
    add("--dry-run", action="store_true", help="say what would be made and needed; fetch and write no weights")
    add("--json", action="store_true", help="print one JSON object on standard output, all else on standard error")


def _add_source_options(parser: ArgumentParser) -> None:
    """Add what says, beside its name, which checkpoint is read."""
    add = parser.add_argument
    add("--revision", help="branch, tag or commit of the checkpoint on the hub")
    add("--adapter", metavar="PATH", help="a LoRA adapter to merge into the weights: a folder, or an id on the hub")
    add("--adapter-revision", metavar="REVISION", help="branch, tag or commit of the adapter on the hub")


def _open(path_or_hub_id: str, args: Namespace, *, weights: bool = True) -> Checkpoint:
    from edge_assistant_export.checkpoint import Checkpoint

    if args.adapter_revision and args.adapter is None:
        args.parser.error("--adapter-revision says nothing without --adapter")
    return Checkpoint.open(path_or_hub_id, args.revision, args.adapter, args.adapter_revision, weights=weights)


def _add_verify(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _add(commands, "verify", _verify, "compare a bundle with its checkpoint in float32", _VERIFY)
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    add("--reference", required=True, metavar="CHECKPOINT", help="a folder, or the id of a model on the hub")
    _add_source_options(parser)
    add("--text", type=Path, metavar="FILE", help="what to read (default: text that the checkpoint samples)")
    add("--tokens", type=int, default=2048, metavar="N", help="how much of it to read (default: 2048)")
    add("--record", action="store_true", help="write what was measured into the bundle's manifest")


def _add_synth(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _add(commands, "synth", _synth, "write a random checkpoint of a known shape, for benchmarks", _SYNTH)
    add = parser.add_argument
    add("--shape", required=True, metavar="NAME", help="one of mistral-7b, mistral-small, mixtral-8x7b, ...")
    add("--layers", type=int, metavar="N", help="fewer layers than the shape has")
    add("out", type=Path, metavar="OUT", help="the checkpoint's folder, which must not exist yet")


def _add_boards(commands: _SubParsersAction[ArgumentParser]) -> None:
    parser = _add(commands, "boards", _boards, "list the boards that a model can be made for", _BOARDS)
    parser.add_argument("--json", action="store_true", help="print all that is known of them, one JSON array")


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


def _given(args: Namespace) -> Given:
    """Return what was said of the recipe; the rest is the recipe's own default, or the board's choice."""
    from edge_assistant_export.target import Given

    said = {option: getattr(args, option) for option in Given.__annotations__}
    if said["method"] is not None:
        said["method"] = said["method"].replace("-", "_")
    return cast("Given", {option: value for option, value in said.items() if value is not None})


def _model(args: Namespace) -> None:
    from edge_assistant.device.boards import target as find_target
    from edge_assistant.device.boards import targets
    from edge_assistant_export.estimate import estimate
    from edge_assistant_export.explain import explain
    from edge_assistant_export.publish import check_output, check_space
    from edge_assistant_export.recipe import Recipe
    from edge_assistant_export.target import check, choose
    from edge_assistant_export.write import BUNDLE_FILES, describe

    given = _given(args)
    reasons: tuple[str, ...] = ()
    target = None if args.target is None else find_target(args.target)
    recipe = Recipe(**given) if target is None else check(given)
    check_output(args.out, BUNDLE_FILES, overwrite=args.overwrite)
    report = sys.stderr if args.json else sys.stdout
    with _open(args.checkpoint, args, weights=not args.dry_run) as checkpoint:
        if target is not None:
            choice = choose(checkpoint.config, target, given, targets())
            recipe, reasons = choice.recipe, explain(checkpoint.config, target, given, choice)
        planned = describe(checkpoint, recipe, args.out.absolute().name)
        needs = estimate(planned)
        check_space(args.out, needs.bundle)
        print(_plan_text(planned, needs), *(f"  - {reason}" for reason in reasons), sep="\n", file=report, flush=True)
        made: dict[str, object] = {"dry_run": True}
        said = "Nothing was written."
        if not args.dry_run:
            made, said = _exported(args, checkpoint, recipe)
    print(said, file=report)
    if args.json:
        chosen = {"target": None if target is None else target.name, "reasons": reasons}
        print(json.dumps(_needs_json(args.out, planned, needs) | made | chosen))


def _exported(args: Namespace, checkpoint: Checkpoint, recipe: Recipe) -> tuple[dict[str, object], str]:
    """Export, and return what was made, as JSON and as text."""
    from edge_assistant_export.write import export

    started = time.perf_counter()
    try:
        with _progress() as show:
            manifest = export(checkpoint, recipe, args.out, show, overwrite=args.overwrite)
    except KeyboardInterrupt:
        print("What is finished is kept: the same command goes on with it.", file=sys.stderr)
        raise
    seconds = time.perf_counter() - started
    files = {name: entry.bytes for name, entry in manifest.files.items()}
    made: dict[str, object] = {"seconds": round(seconds, 3), "bytes": sum(files.values()), "files": files}
    return made, _summary_text(args.out, manifest, seconds)


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
    experts = (
        f", {architecture.n_experts_per_token} of {architecture.n_experts} experts" if architecture.n_experts else ""
    )
    adapter = manifest.source.adapter
    base = f", trained on {adapter.base_model}" if adapter and adapter.base_model else ""
    tuned = f"with the adapter {adapter.name}: rank {adapter.rank}{base}\n" if adapter else ""
    licence = manifest.licence or "not stated by the checkpoint; name it with --licence"
    return (
        f"{manifest.source.name} ({manifest.source.layout} layout): {architecture.n_layers} layers, "
        f"hidden {architecture.hidden_size}, vocabulary {architecture.vocab_size}{experts}\n{tuned}"
        f"{how.bits} bits a weight{block}, lm_head {how.lm_head_bits}, {manifest.cache.type} cache, "
        f"up to {architecture.max_positions} tokens\n"
        f"The bundle will take {_size(needs.bundle)}. A board needs {_size(needs.memory)} of memory for it, and "
        f"{_size(needs.cache_per_token)} a token of context ({context} tokens: {_size(needs.memory_with(context))}).\n"
        f"Licence of the weights: {licence}"
    )


def _summary_text(out: Path, manifest: AnyManifest, seconds: float) -> str:
    """Return a table of the files, and how long they took."""
    rows = [(name, entry.bytes) for name, entry in manifest.files.items()]
    total = sum(size for _, size in rows)
    table = "\n".join(f"  {name:<26}{_size(size):>10}" for name, size in (*rows, ("in all", total)))
    rate = total / seconds / 1e6
    return f"{out} is ready after {seconds:.1f} s ({rate:.0f} MB/s written)\n{table}"


def _needs_json(out: Path, manifest: Manifest, needs: Estimate) -> dict[str, object]:
    return {
        "bundle": str(out),
        "name": manifest.name,
        "licence": manifest.licence,
        "bytes": needs.bundle,
        "memory_bytes": needs.memory,
        "cache_bytes_per_token": needs.cache_per_token,
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

    from edge_assistant_export.verify import record, verify

    text = None if args.text is None else args.text.read_text(encoding="utf-8")
    with _open(args.reference, args) as checkpoint, _progress() as show:
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
        print(f"{one.name:<28}{also:<18}{_size(one.usable_bytes):>12}{bandwidth:>13}  {cpu}")


def _board_json(target: Target) -> dict[str, object]:
    board = target.board.model_dump(mode="json", exclude={"variants"})
    known = {"name": target.name, "title": target.title, "usable_bytes": target.usable_bytes}
    return known | target.variant.model_dump() | {"board": board}


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
        files = {name: entry.bytes for name, entry in manifest.files.items()}
        made = {"seconds": round(seconds, 3), "bytes": sum(files.values()), "files": files}
        said = {"kind": manifest.kind, "licence": manifest.licence, "quality": manifest.quality}
        print(json.dumps({"bundle": str(args.out), "name": manifest.name, **said, **made}))
