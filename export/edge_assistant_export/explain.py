"""Why a board gets the recipe it gets, in whole sentences for the person who exports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edge_assistant_export.recipe import LONGEST_DEFAULT
from edge_assistant_export.target import COMFORTABLE, READING, Choice, Given

if TYPE_CHECKING:
    from edge_assistant.bundle import Architecture
    from edge_assistant.device.boards import Accelerator, Target
    from edge_assistant_export.target import Weighed

_WEIGHED: dict[Weighed, str] = {
    "exact": "the most exact there was to choose from; it fits, and is read fast enough",
    "fast enough": "the most exact that fits and is read fast enough",
    "fastest": f"what is read fastest, as no choice reaches the {READING:.0f} tokens a second that people read",
    "smallest": f"the smallest, as {COMFORTABLE:,} tokens of context do not fit beside anything else",
}


def explain(architecture: Architecture, target: Target, given: Given, choice: Choice) -> tuple[str, ...]:
    """Return the reasons of a choice, in the order in which it was made."""
    return (
        f"{target.title}: {_gb(target.usable_bytes)} are left beside the system.",
        _level(target, given, choice),
        *_dtype(architecture, target, given, choice),
        *_weights(target, given, choice),
        _cache(architecture, given, choice),
        *_window(architecture, given, choice),
        *_calibration(given, choice),
        _context(architecture, given, choice),
        _speed(target, choice),
        *_accelerators(architecture, target, choice),
        *target.board.notes,
    )


def _level(target: Target, given: Given, choice: Choice) -> str:
    recipe, cpu = choice.recipe, target.board.cpu
    asked = ", as asked" if "accuracy_level" in given else ""
    if not recipe.quantized:
        return f"{recipe.bits} bits a weight compute in {recipe.dtype}."
    if not target.board.has_dot_products:
        if recipe.accuracy_level:
            return f"Accuracy level 4{asked}, but the {cpu} has no dot products: it computes in float32 all the same."
        return f"Accuracy level 0{asked}: the {cpu} has no dot products and computes in float32, also where 4 is asked."
    if not recipe.accuracy_level:
        return f"Accuracy level 0{asked}: exact, but some times slower than 4, for which the {cpu} has dot products."
    return (
        f"Accuracy level 4{asked}: the {cpu} has dot products. Kernels for ARM cut scales to bfloat16; the exporter "
        "rounds them so first, and the board computes with the same weights as a workstation."
    )


def _dtype(architecture: Architecture, target: Target, given: Given, choice: Choice) -> Iterator[str]:
    recipe = choice.recipe
    if recipe.dtype == "float16":
        why = ", as asked" if "dtype" in given else "".join(f", for the {one.name}" for one in _usable(target))
        yield f"It computes in float16{why}: onnxruntime attends on CUDA in nothing else. The processor is slower so."
    elif _usable(target) and "dtype" not in given and architecture.n_experts:
        yield (
            "It computes in float32, on the processor: whether a GPU's kernel for a mixture's experts is right, only "
            "the board can find out, and does with --dtype float16."
        )
    elif _usable(target):
        yield "It computes in float32, as asked: on CUDA onnxruntime attends in float16 alone, so the processor does."


def _weights(target: Target, given: Given, choice: Choice) -> Iterator[str]:
    recipe = choice.recipe
    if not recipe.quantized:
        return
    why = "as asked" if {"bits", "block_size"} <= given.keys() else _WEIGHED[choice.weighed]
    yield f"{recipe.bits} bits a weight in blocks of {recipe.block_size}: {why}."
    if (recipe.bits == 8 or recipe.eight_bits) and not (target.board.has_dot_products and recipe.accuracy_level):
        yield "8 bits have no kernel in float32: each such matrix is made float32 anew for every token, which is slow."


def _cache(architecture: Architecture, given: Given, choice: Choice) -> str:
    recipe, needs = choice.recipe, choice.needs
    if "cache" in given:
        return f"{recipe.cache} cache, as asked: {_gb(needs.cache.of(1024))} for 1,024 tokens."
    wanted = min(given.get("sequence_length", COMFORTABLE), architecture.max_positions)
    if recipe.cache == "int8":
        times = {"float32": "four times", "float16": "twice"}[recipe.dtype]
        return f"int8 cache: {wanted:,} tokens do not fit in {recipe.dtype}, which takes {times} as much."
    return f"float cache: {wanted:,} tokens fit as they are."


def _window(architecture: Architecture, given: Given, choice: Choice) -> Iterator[str]:
    windowed, cache = len(architecture.windowed_layers), choice.needs.cache
    if not windowed:
        return
    which = "All layers" if windowed == architecture.n_layers else f"{windowed} of the {architecture.n_layers} layers"
    if choice.recipe.window_cache == "full":
        why = "as asked" if "window_cache" in given else "as only the processor drops what has left a window"
        yield f"{which} have a window of {architecture.sliding_window:,}, but hold the whole context, {why}."
    else:
        yield f"{which} have a window of {architecture.sliding_window:,} and hold at most {cache.bound:,} tokens."


def _calibration(given: Given, choice: Choice) -> Iterator[str]:
    recipe = choice.recipe
    if recipe.calibrates and recipe.calibration is None:
        yield "It is calibrated on text: --calibration FILE saves the hours in which a large model samples its own."
    if not recipe.calibrates and "calibration" in given:
        yield f"{given['calibration']} is not read: neither the cache nor the method asks for a text."


def _context(architecture: Architecture, given: Given, choice: Choice) -> str:
    tokens, own = choice.recipe.positions(architecture), architecture.max_positions
    if "sequence_length" in given:
        why = "as asked"
    elif tokens == own:
        why = "the model's own"
    elif tokens == LONGEST_DEFAULT:
        why = f"of the model's {own:,}; more only where --sequence-length asks"
    else:
        why = f"what fits of the model's {own:,}"
    budget = choice.needs.cache.of(tokens)
    return f"A context of {tokens:,} tokens, {why}: engine.kv_cache_bytes = {budget} on the board holds it."


def _speed(target: Target, choice: Choice) -> str:
    read = choice.needs.read_per_token
    peak, copy = target.variant.peak_bandwidth, target.board.copy_bandwidth
    return (
        f"Every token reads {_gb(read)} of weights: at most {peak / read:.1f} tokens/s at the memory's {_gb(peak)}/s, "
        f"{copy / read:.1f} at the {_gb(copy)}/s that one core copies. By arithmetic, not measured."
    )


def _usable(target: Target) -> list[Accelerator]:
    return [one for one in target.board.accelerators if one.in_wheels]


def _accelerators(architecture: Architecture, target: Target, choice: Choice) -> Iterator[str]:
    for one in target.board.accelerators:
        if not one.in_wheels:
            yield f"The {one.name} is not used: no onnxruntime wheel on the Python index has code for {one.compute}."
            if choice.recipe.dtype == "float32" and not architecture.n_experts:
                yield "With an onnxruntime that was built for it, --dtype float16 makes a bundle that runs there."


def _gb(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
