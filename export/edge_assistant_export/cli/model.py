"""`edge-assistant-export model`: a checkpoint of Mistral or Mixtral becomes a bundle."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

from edge_assistant.device.memory import size
from edge_assistant.errors import OutputExistsError, RecipeError
from edge_assistant_export.cli.common import (
    add_command,
    add_source_options,
    open_checkpoint,
    progress,
    read_size,
    summary_text,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction
    from collections.abc import Iterator

    from edge_assistant.bundle import Manifest
    from edge_assistant_export.checkpoint import Checkpoint
    from edge_assistant_export.estimate import Estimate
    from edge_assistant_export.mixed import Goal
    from edge_assistant_export.recipe import Recipe
    from edge_assistant_export.target import Given


_EXAMPLES = """\
examples:
  edge-assistant-export model models/home-mini/checkpoint /tmp/home-mini
  edge-assistant-export model mistralai/Mistral-7B-Instruct-v0.3 models/mistral-7b --block-size 128 --cache int8
  edge-assistant-export model ~/Mistral-7B-v0.1 models/mistral-7b --method gptq --zero-points --calibration pages.txt
  edge-assistant-export model ~/Mistral-7B-v0.1 models/mistral-7b --method awq --calibration pages.txt
  edge-assistant-export model ~/Mistral-7B-v0.1 models/7b --block-size 128 --target-size 4.2GB --calibration pages.txt
  edge-assistant-export model ~/Mistral-7B-v0.1 models/mistral-7b --max-kl 0.01 --method gptq --zero-points
  edge-assistant-export model ~/Mistral-7B-v0.1 models/mistral-7b --lm-head-bits 8 --eight-bits layers.31.down
  edge-assistant-export model ~/Mistral-7B-v0.1 models/exact --bits 32
  edge-assistant-export model ~/Mistral-7B-v0.3 models/for-cuda --dtype float16 --block-size 128
  edge-assistant-export model mistralai/Mixtral-8x7B-Instruct-v0.1 models/mixtral --block-size 128 --dry-run
  edge-assistant-export model ~/Mistral-7B-v0.1 models/mistral-7b --for pi5-8gb --sequence-length 8192
  edge-assistant-export model mistralai/Mistral-7B-v0.3 models/tuned --adapter ~/my-lora
  edge-assistant-export model mistralai/Mistral-7B-v0.3 models/mistral-7b --lora-rank 16

--for chooses what is not given so that the bundle fits the board, says why, and refuses what cannot fit. `boards` lists
them.

--target-size and --max-kl measure with the calibration text what each matrix costs in 4 bits, and give 8 bits, or
blocks of 32 where --block-size is larger, to those that gain most for a byte; --eight-bits and --small-blocks name them
again, without measuring. What --block-size says stays: a SIZE that is refused may do with larger blocks. --max-kl makes
some bundles on its way, and measures them on text held out of the calibration. What was measured is kept until the
bundle is there.

A bundle is a folder whose files a board checks before it loads them. It appears whole or not at all. What was killed or
interrupted goes on where it was when the same command is run again. An adapter is a folder with adapter_config.json and
adapter_model.safetensors, as PEFT saves a plain LoRA; it is merged into the weights before they are rounded, and
calibration reads the merged model. Name the checkpoint that the adapter was trained on. With --lora-rank adapters are
not merged but taken while the bundle runs, one or another for each request: `adapter` makes them.
"""


def add_model(commands: _SubParsersAction[ArgumentParser]) -> None:
    """Add the command."""
    parser = add_command(commands, "model", _model, "export a checkpoint to a bundle", _EXAMPLES)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder, or the id of a model on the hub")
    parser.add_argument("out", type=Path, metavar="OUT", help="the bundle's folder, which must not exist yet")
    add = parser.add_argument
    add("--for", dest="target", metavar="BOARD", help="choose what fits a board, such as pi5-8gb or orin-nano-8gb")
    add("--bits", type=int, metavar="4|8|16|32", help="bits of a weight (default: 4); 32 keeps float32, and 16 "
        "float16 with --dtype float16")  # fmt: skip
    add(
        "--block-size",
        type=int,
        metavar="32|64|128",
        help="weights that share a scale (default: 32): 32 is the most exact, 128 the smallest and fastest",
    )
    add(
        "--target-size",
        type=read_size,
        metavar="SIZE",
        help="8 bits for as many matrices as SIZE, such as 4.2GB, holds",
    )
    add("--max-kl", type=float, metavar="NATS", help="as small as keeps the KL divergence at NATS or below")
    add("--lm-head-bits", type=int, metavar="4|8", help="bits of the head, and of the embedding where they are tied "
        "(default: as --bits)")  # fmt: skip
    add("--eight-bits", type=_names, metavar="NAMES", help="these matrices in 8 bits: embedding, lm_head, "
        "layers.N.qkv, .o, .gate_up, .down, or .experts")  # fmt: skip
    add("--small-blocks", type=_names, metavar="NAMES", help="these matrices in blocks of 32")
    add(
        "--method",
        metavar="least-squares|maximum|gptq|awq",
        help="how weights are rounded (default: least-squares); gptq is the most exact, awq "
        "scales channels first; both read a calibration text",
    )
    add(
        "--zero-points",
        action="store_const",
        const=True,
        help="give each block a zero point: nearer to the checkpoint, for 4 more bits a block",
    )
    add(
        "--accuracy-level",
        type=int,
        metavar="0|4",
        help="4 computes in int8 (default), 0 in float32, but for 8-bit experts",
    )
    add(
        "--dtype",
        metavar="float32|float16",
        help="what it computes in, beside the integers (default: float32): float16 is what CUDA attends in, and slower "
        "on a processor",
    )
    add("--cache", metavar="float|int8", help="the key/value cache (default: float, that is of the type of --dtype)")
    add(
        "--window-cache",
        metavar="bounded|full",
        help="what layers with a window keep: it and some slack (bounded, the default), or all, which optimum can load",
    )
    add(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="text for gptq, awq, the scales of an int8 cache and to choose 8 bits by, its first 8192 tokens "
        "(default: text that the model samples itself, for which it is read 127 times: hours for a 7B)",
    )
    add(
        "--sequence-length",
        type=int,
        metavar="N",
        help="longest context, in tokens (default: the checkpoint's, at most 32768)",
    )
    add("--lora-rank", type=int, metavar="N", help="take LoRA adapters of up to this rank while it runs, made with "
        "`adapter`; of a mixture for attention alone, and not with --method awq (default: take none)")  # fmt: skip
    add("--instruct", metavar="VERSION", help="format of a chat: v1, v2, v3, v3-tekken, v7, v7-tekken, v11, v13")
    add("--name", help="what the bundle calls itself (default: as its folder)")
    add("--licence", help="the licence of the weights (default: what the checkpoint says)")
    add_source_options(parser)
    add("--overwrite", action="store_true", help="replace a bundle that is already there")
    add("--dry-run", action="store_true", help="say what would be made and needed; fetch and write no weights")
    add("--json", action="store_true", help="print one JSON object on standard output, all else on standard error")


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _given(args: Namespace) -> Given:
    """Return what was said of the recipe; the rest is the recipe's own default, or the board's choice."""
    from edge_assistant_export.recipe import check_choice
    from edge_assistant_export.target import Given

    said = {option: getattr(args, option) for option in Given.__annotations__}
    if args.lm_head_bits is not None:
        plain = 4 if args.bits is None else args.bits
        check_choice("lm_head_bits", args.lm_head_bits, (4, 8) if plain == 4 else (plain,))
        if args.lm_head_bits == plain == 4 and "lm_head" in (args.eight_bits or ()):
            raise RecipeError("lm_head_bits", 4, "8, as eight_bits names lm_head")
        if args.lm_head_bits != plain:
            said["eight_bits"] = (*(args.eight_bits or ()), "lm_head")
    if said["method"] is not None:
        said["method"] = said["method"].replace("-", "_")
    return cast("Given", {option: value for option, value in said.items() if value is not None})


def _model(args: Namespace) -> None:
    from edge_assistant.device.boards import target as find_target
    from edge_assistant.device.boards import targets
    from edge_assistant_export.calibration_text import check_calibration
    from edge_assistant_export.estimate import estimate
    from edge_assistant_export.explain import explain
    from edge_assistant_export.mixed import check_goal, check_size, choose_bits
    from edge_assistant_export.publish import check_output, check_space
    from edge_assistant_export.recipe import Recipe
    from edge_assistant_export.target import check, check_floats, choose
    from edge_assistant_export.write import BUNDLE_FILES, describe

    given = _given(args)
    check_floats(given)
    goal = _goal(args)
    reasons: tuple[str, ...] = ()
    target = None if args.target is None else find_target(args.target)
    # Whether the text is read by the export as well depends on the method and the cache.
    recipe = Recipe(**given) if target is None and goal is None else check(given)
    if goal is not None:
        check_goal(recipe, goal, args.target)
    check_output(args.out, BUNDLE_FILES, overwrite=args.overwrite)
    if args.calibration is not None:
        check_calibration(args.calibration)
    report = sys.stderr if args.json else sys.stdout
    texts = kl = None
    with ExitStack() as stack:
        checkpoint = stack.enter_context(open_checkpoint(args.checkpoint, args, weights=not args.dry_run))
        if target is not None:
            choice = choose(checkpoint.config, target, given, targets())
            recipe, reasons = choice.recipe, explain(checkpoint.config, target, given, choice)
        elif goal is not None and args.dry_run:
            reasons = (_goal_text(check_size(checkpoint, recipe, goal)),)
        elif goal is not None:
            with _kept_if_interrupted(), progress() as show:
                chosen = choose_bits(checkpoint, recipe, goal, args.calibration, args.out, show)
                recipe, texts, kl = stack.enter_context(chosen)
            reasons = tuple(_chosen_text(recipe, kl))
        planned = describe(checkpoint, recipe, args.out.absolute().name)
        needs = estimate(planned)
        print(_plan_text(planned, needs), *(f"  - {reason}" for reason in reasons), sep="\n", file=report, flush=True)
        check_space(args.out, needs.bundle + recipe.rounding.keeps(planned.architecture))
        made: dict[str, object] = {"dry_run": True}
        said = "Nothing was written."
        if not args.dry_run:
            made, said = _exported(args, checkpoint, recipe, texts)
    print(said, file=report)
    if args.json:
        board = {"target": None if target is None else target.name, "reasons": reasons}
        how = planned.quantization
        bits = {"bits": how.bits, "eight_bits": how.eight_bits, "small_blocks": how.small_blocks, "kl": kl}
        print(json.dumps(_needs_json(args.out, planned, needs) | made | board | bits | {"dtype": how.dtype}))


def _goal(args: Namespace) -> Goal | None:
    from edge_assistant_export.mixed import Goal

    goal = Goal(args.target_size, args.max_kl)
    return None if goal == Goal() else goal


def _goal_text(sizes: tuple[int, int]) -> str:
    """Say what there is to choose from."""
    least, most = (size(count) for count in sizes)
    return (
        f"Which matrices have 8 bits is chosen when it is made, for it reads weights and text: this is all in 4 bits, "
        f"and the folder takes {least}; all in 8 bits it takes {most}."
    )


def _chosen_text(recipe: Recipe, kl: float | None) -> Iterator[str]:
    """Say what was chosen, and what was measured."""
    options = (("--eight-bits", recipe.eight_bits), ("--small-blocks", recipe.small_blocks))
    again = [f"{option} {','.join(names)}" for option, names in options if names]
    if recipe.bits == 8:
        yield "All matrices have 8 bits: nothing less does, or the size holds them."
    elif not again:
        yield "All matrices have 4 bits: they are near enough, or the size holds no more."
    else:
        yield f"The same again, without measuring: {' '.join(again)}"
    if kl is not None:
        yield f"The KL divergence from the checkpoint is {kl:.2g} nats, measured on text held out of the calibration."


@contextmanager
def _kept_if_interrupted() -> Iterator[None]:
    """Say how to go on with what was interrupted, or could not get its name."""
    try:
        yield
    except (KeyboardInterrupt, OutputExistsError):
        print("What is finished is kept: the same command goes on with it.", file=sys.stderr)
        raise


def _exported(
    args: Namespace, checkpoint: Checkpoint, recipe: Recipe, texts: list[list[int]] | None
) -> tuple[dict[str, object], str]:
    """Export, and return what was made, as JSON and as text."""
    from edge_assistant_export.write import export

    started = time.perf_counter()
    with _kept_if_interrupted(), progress() as show:
        manifest = export(checkpoint, recipe, args.out, show, overwrite=args.overwrite, texts=texts)
    seconds = time.perf_counter() - started
    files = {name: entry.bytes for name, entry in manifest.files.items()}
    made: dict[str, object] = {"seconds": round(seconds, 3), "bytes": sum(files.values()), "files": files}
    return made, summary_text(args.out, manifest, seconds)


def _plan_text(manifest: Manifest, needs: Estimate) -> str:
    """Return what is about to be made, and what it will need."""
    architecture, how = manifest.architecture, manifest.quantization
    block = f" in blocks of {how.block_size}" if how.block_size else ""
    better = (("8 bits a weight", how.eight_bits), ("blocks of 32", how.small_blocks))
    exceptions = "".join(f"{what} in {', '.join(names)}\n" for what, names in better if names)
    computes = "" if how.dtype == "float32" else f"computes in {how.dtype}\n"
    context = min(architecture.max_positions, 2048)
    experts = (
        f", {architecture.n_experts_per_token} of {architecture.n_experts} experts" if architecture.n_experts else ""
    )
    adapter = manifest.source.adapter
    base = f", trained on {adapter.base_model}" if adapter and adapter.base_model else ""
    tuned = f"with the adapter {adapter.name}: rank {adapter.rank}{base}\n" if adapter else ""
    lora = manifest.lora
    takes = f"takes adapters of up to rank {lora.rank} for {', '.join(lora.matrices)}\n" if lora else ""
    licence = manifest.licence or "not stated by the checkpoint; name it with --licence"
    return (
        f"{manifest.source.name} ({manifest.source.layout} layout): {architecture.n_layers} layers, "
        f"hidden {architecture.hidden_size}, vocabulary {architecture.vocab_size}{experts}\n{tuned}"
        f"{how.bits} bits a weight{block}, {manifest.cache.type} cache, up to {architecture.max_positions} tokens\n"
        f"{computes}{exceptions}{takes}"
        f"The bundle will take {size(needs.bundle)}. A board needs {size(needs.memory)} of memory for it, and "
        f"{_cache_text(needs)} ({context} tokens: {size(needs.memory_with(context))}).\n"
        f"Licence of the weights: {licence}"
    )


def _cache_text(needs: Estimate) -> str:
    """Return what a token of context costs; less where layers with a window hold no more of them."""
    cache = needs.cache
    text = f"{size(cache.per_token)} a token of context"
    if cache.bound == cache.max_positions:
        return text
    return f"{text} up to {cache.bound} tokens, {size(cache.per_late_token)} beyond"


def _needs_json(out: Path, manifest: Manifest, needs: Estimate) -> dict[str, object]:
    return {
        "bundle": str(out),
        "name": manifest.name,
        "licence": manifest.licence,
        "bytes": needs.bundle,
        "memory_bytes": needs.memory,
        "cache_bytes_per_token": needs.cache.per_token,
        "cache_bytes": needs.cache.of(manifest.architecture.max_positions),
    }
