"""Which recipe suits a board: what fits its memory, and of that the most exact that is read fast enough.

Contract: a pure function of shapes. It reads no weight and no file, and leaves alone what the user gave.

    accuracy level   4 where the processor has dot products; elsewhere onnxruntime computes in float32 whatever is asked
    weights          the most exact that one core copies fast enough for an answer to keep up with its reader, of those
                     that fit with a context of 4,096 tokens; where none is so fast, the one that is read fastest
    dtype            float16 where onnxruntime's wheels have code for the board's GPU, as CUDA attends in nothing else;
                     a window then keeps the whole context, for only the processor drops positions. Else float32, and
                     for a mixture, whose experts the board runs on the processor
    cache            of that type where that context fits so, else int8
    context          as long as fits, up to the model's own; less than 1,024 tokens are refused
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypedDict, cast, get_args

from edge_assistant.bundle import FLOAT_BITS
from edge_assistant.errors import BoardTooSmallError, RecipeError
from edge_assistant_export.estimate import Estimate, estimate_of, fixed_bytes
from edge_assistant_export.recipe import Bits, BlockSize, CacheType, Recipe, WindowCache

if TYPE_CHECKING:
    from edge_assistant.bundle import Architecture, Dtype, InstructVersion
    from edge_assistant.device.boards import Target

COMFORTABLE: Final = 4096
"""Tokens of context for which something less exact is taken: a home's description, its tools and some turns."""
SHORTEST: Final = 1024
"""Tokens of context with which a model is still an assistant: the tools alone take some hundreds."""
READING: Final = 5.0
"""Tokens a second: people read 238 words a minute (Brysbaert, J. Mem. Lang. 109, 2019) of about 1.3 tokens each."""
# Contexts between the shortest and the model's own are whole multiples of what a prompt is read in.
_STEP: Final = 256


class Given(TypedDict, total=False):
    """What the user fixed of a recipe; what is missing is free."""

    name: str
    bits: Bits
    block_size: BlockSize
    eight_bits: tuple[str, ...]
    small_blocks: tuple[str, ...]
    method: str
    zero_points: bool
    accuracy_level: Literal[0, 4]
    dtype: Dtype
    cache: CacheType
    window_cache: WindowCache
    calibration: Path
    sequence_length: int
    instruct: InstructVersion
    licence: str
    lora_rank: int


Weighed = Literal["exact", "fast enough", "fastest", "smallest"]
"""What spoke for a candidate's weights."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A recipe for a board."""

    recipe: Recipe
    needs: Estimate
    weighed: Weighed


@dataclass(frozen=True, slots=True)
class _Candidate:
    recipe: Recipe
    needs: Estimate


def choose(architecture: Architecture, target: Target, given: Given, others: Sequence[Target] = ()) -> Choice:
    """Return the recipe for a model of this shape on a board; `others` are named where they hold what it cannot.

    Raises:
        BoardTooSmallError: Nothing that was left free makes it fit; the message says what would.
        RecipeError: A value was given that no kernel knows, or a context longer than the model's.
    """
    choice = _choose(architecture, target, given)
    if choice is None:
        tokens = _contexts(architecture, given)[-1]
        least = _smallest(_candidates(architecture, target, given), tokens).needs
        mends = [
            *_other_options(architecture, target, given),
            *_other_boards(architecture, target, given, others),
            *_other_model(architecture, target, least, tokens),
        ]
        raise BoardTooSmallError(target.title, least.memory_with(tokens), tokens, target.usable_bytes, mends)
    return choice


def check_floats(given: Given) -> None:
    """Refuse what was given of how weights are rounded, where they are not.

    Raises:
        RecipeError
    """
    if (bits := given.get("bits")) not in FLOAT_BITS.values():
        return
    for option, value in given.items():
        if option in ("block_size", "method", "zero_points", "accuracy_level"):
            raise RecipeError(option, value, f"none, as bits is {bits}")


def check(given: Given) -> Recipe:
    """Return the recipe with all that is free at its default, so that a wrong value is refused before anything is read.

    A calibration text is left out: whether it is read depends on what is chosen.

    Raises:
        RecipeError
    """
    fixed = given.copy()
    fixed.pop("calibration", None)
    return Recipe(**fixed)


def _choose(architecture: Architecture, target: Target, given: Given) -> Choice | None:
    """Take the first context of which something fits, and the best of what does."""
    candidates = _candidates(architecture, target, given)
    for number, tokens in enumerate(_contexts(architecture, given)):
        fitting = [one for one in candidates if one.needs.memory_with(tokens) <= target.usable_bytes]
        if fitting:
            best, weighed = _best(fitting, candidates[0].recipe, target)
            if number:
                best, weighed = _smallest(fitting, tokens), "smallest"
            return Choice(_finished(best, architecture, target, given), best.needs, weighed)
    return None


def _contexts(architecture: Architecture, given: Given) -> tuple[int, ...]:
    """Return the contexts to try, in tokens, the one wanted first."""
    longest = check(given).positions(architecture)
    if "sequence_length" in given:
        return (longest,)
    return min(longest, COMFORTABLE), min(longest, SHORTEST)


def _candidates(architecture: Architecture, target: Target, given: Given) -> list[_Candidate]:
    """Return all that was left free, the most exact first.

    Eight bits are no choice where they have no kernel: below level 4 every matrix is made float32 for each token.
    """
    base, dot_products = _on(target, architecture, given), target.board.has_dot_products
    level = given.get("accuracy_level", 4 if dot_products else 0)
    choosable: tuple[Bits, ...] = (8, 4) if dot_products and level and "eight_bits" not in given else (4,)
    every_bits: tuple[Bits, ...] = (given["bits"],) if "bits" in given else choosable
    blocks: tuple[BlockSize, ...] = (given["block_size"],) if "block_size" in given else _blocks(architecture, base)
    caches: tuple[CacheType, ...] = (given["cache"],) if "cache" in given else get_args(CacheType)
    return [
        _candidate(architecture, replace(base, bits=bits, block_size=block, accuracy_level=level, cache=cache), target)
        for bits in every_bits
        for block in (blocks[:1] if bits in FLOAT_BITS.values() else blocks)
        for cache in caches
    ]


def _on(target: Target, architecture: Architecture, given: Given) -> Recipe:
    """Return what is free at its default on this board: what its GPU asks for, where it has one that is used.

    Of a mixture only the board can find out whether the GPU's kernel for experts is right: it gets what the CPU likes.
    """
    base, has_gpu = check(given), any(one.in_wheels for one in target.board.accelerators)
    if "dtype" in given or not base.quantized or architecture.n_experts or not has_gpu:
        return base
    return replace(base, dtype="float16", window_cache=given.get("window_cache", "full"))


def _blocks(architecture: Architecture, base: Recipe) -> tuple[BlockSize, ...]:
    """Return the blocks that the rows of this architecture can be cut into; where none is, the first says so."""
    fitting: list[BlockSize] = []
    for block in get_args(BlockSize):
        with suppress(RecipeError):
            replace(base, block_size=block).quantization(architecture)
            fitting.append(block)
    return tuple(fitting) or get_args(BlockSize)


def _candidate(architecture: Architecture, recipe: Recipe, target: Target) -> _Candidate:
    """Weigh a recipe as the board computes it."""
    quantization = recipe.quantization(architecture)
    if not target.board.has_dot_products:
        quantization = replace(quantization, accuracy_level=0)
    return _Candidate(recipe, estimate_of(architecture, quantization, recipe.cache_spec(architecture)))


def _best(fitting: Sequence[_Candidate], exact: Recipe, target: Target) -> tuple[_Candidate, Weighed]:
    """Return the first that is read fast enough, else the one that is read fastest."""
    for one in fitting:
        if target.board.copy_bandwidth / one.needs.read_per_token >= READING:
            same = (one.recipe.bits, one.recipe.block_size) == (exact.bits, exact.block_size)
            return one, "exact" if same else "fast enough"
    return min(fitting, key=lambda one: one.needs.read_per_token), "fastest"


def _smallest(candidates: Sequence[_Candidate], tokens: int) -> _Candidate:
    return min(candidates, key=lambda one: one.needs.memory_with(tokens))


def _finished(candidate: _Candidate, architecture: Architecture, target: Target, given: Given) -> Recipe:
    """Return the recipe with the longest context that fits, and the calibration text if it is read."""
    recipe, needs = candidate.recipe, candidate.needs
    tokens = recipe.positions(architecture)
    room = needs.cache.holds(target.usable_bytes - needs.memory)
    if room < tokens:
        tokens = room - room % _STEP
    recipe = replace(recipe, sequence_length=tokens)
    return replace(recipe, calibration=given["calibration"]) if recipe.calibrates and "calibration" in given else recipe


def _other_options(architecture: Architecture, target: Target, given: Given) -> Iterator[str]:
    """Name what the user gave and would have to change, each alone."""
    for option in ("cache", "window_cache", "sequence_length", "bits", "block_size", "eight_bits", "small_blocks"):
        rest = cast("Given", {key: value for key, value in given.items() if key != option})
        if option in given and (choice := _choose(architecture, target, rest)):
            value = getattr(choice.recipe, option)
            flag = f"--{option.replace('_', '-')}"
            yield f"{flag} {value}" if value else f"no {flag}"


def _other_boards(architecture: Architecture, target: Target, given: Given, others: Sequence[Target]) -> Iterator[str]:
    """Name the next size of the same board, else up to three other boards with the least memory."""
    holding = [one for one in others if _choose(architecture, one, given)]
    holding.sort(key=lambda one: (one.board != target.board, one.variant.ram_bytes))
    wanted = 1 if holding and holding[0].board == target.board else 3
    yield from (f"--for {one.name} ({one.title})" for one in holding[:wanted])


def _other_model(architecture: Architecture, target: Target, least: Estimate, tokens: int) -> Iterator[str]:
    """Say how large a model would fit: one like this with fewer layers."""
    fixed = fixed_bytes(architecture)
    millions = least.parameters * (target.usable_bytes - fixed) // (least.memory_with(tokens) - fixed) // 1_000_000
    if millions > 0:
        yield f"a model like it of {millions:,} million parameters"
