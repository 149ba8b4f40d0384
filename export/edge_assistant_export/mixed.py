"""Mixed precision: which matrices of a 4-bit bundle are stored better, and how.

A matrix can be bettered twice: by blocks of 32, where the others are larger, and by 8 bits. A step's gain is what it
spares of the matrix's sensitivity (`sensitivity.py`): all of it with 8 bits, with blocks of 32 as large a share as of
its squared error. All steps stand in one list, the one first that gains most for a byte.

    at most so many bytes   the list is gone through once, and what fits is taken
    at most such a KL       the fewest steps from its beginning that bring the bundle so near to its checkpoint

For a KL divergence bundles are made and measured as `verify` measures, on texts that nothing was calibrated with: so
what is promised is what the board computes, by whatever method the weights were rounded. The number of steps is halved
until it is known: about nine exports for a 7B.

All that is found on the way is kept beside the bundle until that is there: what was killed is not measured again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from edge_assistant.bundle import SMALL_BLOCK, Bundle
from edge_assistant.errors import CheckpointError, MaxKlError, RecipeError, TargetSizeError
from edge_assistant_export.calibration_text import calibration_texts
from edge_assistant_export.journal import kept
from edge_assistant_export.mistral import CacheScales
from edge_assistant_export.publish import partial_folder
from edge_assistant_export.reference import forward_all
from edge_assistant_export.sensitivity import saved_by_small_blocks, sensitivities
from edge_assistant_export.verify import compare
from edge_assistant_export.weights import plan_weights
from edge_assistant_export.write import TEXTS, check_norms, describe, export, fingerprint, graph_of, mark_of

if TYPE_CHECKING:
    from edge_assistant_export.checkpoint import Checkpoint
    from edge_assistant_export.pieces import Progress
    from edge_assistant_export.quantize import Float32
    from edge_assistant_export.recipe import Recipe
    from edge_assistant_export.weights import Matrix

# One text of so many is held out.
_HELD_OUT: Final = 5
# Positions that are measured at least: a text that ends behind its fourth part would leave one or two.
_LEAST_MEASURED: Final = 128
_TRIAL: Final = "bundle"
# For config.json, genai_config.json, and what the manifest says of files and of quality.
_SMALL_FILES: Final = 4096


@dataclass(frozen=True, slots=True)
class Goal:
    """What decides how many matrices are stored better: one of both."""

    target_size: int | None = None
    """Bytes that the bundle's folder may take."""
    max_kl: float | None = None
    """KL divergence from the checkpoint, in nats, that the bundle may have."""


class Choice(NamedTuple):
    """What came of a goal."""

    recipe: Recipe
    texts: list[list[int]]
    """To calibrate with."""
    kl: float | None
    """Measured on texts held out, where a KL divergence was the goal."""


def check_goal(recipe: Recipe, goal: Goal, board: str | None = None) -> None:
    """Refuse what leaves nothing to choose; `board` is one that chooses itself.

    Raises:
        RecipeError
    """
    option, value = ("max_kl", goal.max_kl) if goal.target_size is None else ("target_size", goal.target_size)
    if goal.target_size is not None and goal.max_kl is not None:
        raise RecipeError("max_kl", goal.max_kl, "none, as target_size decides already")
    if board is not None:
        raise RecipeError(option, value, f"none, as --for {board} chooses the bits")
    if recipe.bits != 4:
        raise RecipeError(option, value, f"none, as bits is {recipe.bits}")
    if recipe.eight_bits or recipe.small_blocks:
        raise RecipeError(option, value, "none, as eight_bits or small_blocks names the matrices already")
    if goal.max_kl is not None and not goal.max_kl > 0:
        raise RecipeError(option, value, 0.001)


def check_size(checkpoint: Checkpoint, recipe: Recipe, goal: Goal) -> tuple[int, int]:
    """Return the bytes, at most, of the bundle's folder with all matrices in 4 bits and with all in 8.

    No weight is read.

    Raises:
        TargetSizeError: The goal is smaller than the first.
    """
    rest = _bytes_beside_the_weights(checkpoint, recipe)
    least, most = (_weight_bytes(checkpoint, replace(recipe, bits=bits)) + rest for bits in (4, 8))
    if goal.target_size is not None and goal.target_size < least:
        raise TargetSizeError(goal.target_size, least, most)
    return least, most


@contextmanager
def choose_bits(
    checkpoint: Checkpoint, recipe: Recipe, goal: Goal, calibration: Path | None, out: Path, progress: Progress
) -> Iterator[Choice]:
    """Give the recipe with the matrices that are stored better, and what to export it with.

    `calibration` is a text, None for what the model samples itself. Bundles to be measured are made beside `out`; what
    was measured lies there until the block is left, so that whoever is killed while they export finds it again.

    Raises:
        TargetSizeError: The bundle cannot be so small.
        MaxKlError: The bundle cannot be so near.
        CheckpointError: There is too little text to measure with, or a tensor cannot be read.
        OutputBusyError: Another export chooses for the same bundle.
        OutputWriteError: Nothing can be written beside `out`.
    """
    check_size(checkpoint, recipe, goal)
    check_norms(checkpoint)
    mark = None if calibration is None else mark_of(calibration)
    work = fingerprint(checkpoint, recipe, describe(checkpoint, recipe, _TRIAL), (goal.max_kl is None, mark))
    with partial_folder(out.absolute().with_name(f"{out.name}.choice"), work) as folder:
        yield _chosen(checkpoint, recipe, goal, calibration, folder, progress)


def _chosen(
    checkpoint: Checkpoint, recipe: Recipe, goal: Goal, calibration: Path | None, folder: Path, progress: Progress
) -> Choice:
    texts = kept(folder / TEXTS, partial(calibration_texts, checkpoint, calibration, partial(progress, "calibration")))
    if (size := goal.target_size) is not None:
        rest = _bytes_beside_the_weights(checkpoint, recipe)
        fits = partial(_takes_at_most, checkpoint, size - rest)
        return Choice(fitting(checkpoint, recipe, fits, texts, progress, folder), texts, None)
    held_out = [text for text in texts[_HELD_OUT - 1 :: _HELD_OUT] if len(text) > 1]
    if (positions := sum(len(text) - 1 for text in held_out)) < _LEAST_MEASURED:
        problem = f"held out of it to measure with, one text of {_HELD_OUT} has {positions} of {_LEAST_MEASURED} tokens"
        raise CheckpointError(calibration or checkpoint.source_name, f"{problem}: give a longer text to --calibration")
    texts = [text for number, text in enumerate(texts, 1) if number % _HELD_OUT]
    trials = _Trials(checkpoint, recipe, texts, held_out, folder, progress)
    choice = _nearest_enough(trials, goal.max_kl or 0)
    trials.clear()
    return choice


def fitting(
    checkpoint: Checkpoint,
    recipe: Recipe,
    fits: Callable[[Recipe], bool],
    texts: list[list[int]],
    progress: Progress,
    keep: Path | None = None,
) -> Recipe:
    """Return the recipe with all steps, from the one that gains most for a byte on, with which it fits.

    What is measured is kept in the folder `keep`, and found there the next time.
    """
    if fits(all_in_8 := replace(recipe, bits=8)):
        return all_in_8
    for step in _by_gain(checkpoint, recipe, texts, progress, keep):
        if fits(tried := step.taken(recipe)):
            recipe = tried
    return recipe


class _Step(NamedTuple):
    """One matrix, stored better."""

    name: str
    bits: int
    """8, or 4 in blocks of 32."""
    gain: float
    bytes: int

    def taken(self, recipe: Recipe) -> Recipe:
        """Return a recipe with this step beyond those that it has."""
        if self.bits == 4:
            return replace(recipe, small_blocks=(*recipe.small_blocks, self.name))
        others = tuple(name for name in recipe.small_blocks if name != self.name)
        return replace(recipe, eight_bits=(*recipe.eight_bits, self.name), small_blocks=others)


def _by_gain(
    checkpoint: Checkpoint, recipe: Recipe, texts: list[list[int]], progress: Progress, keep: Path | None
) -> list[_Step]:
    """Return all steps, the one first that gains most for a byte.

    Raises:
        CheckpointError: What matrices cost is no number.
    """
    how = recipe.quantization(checkpoint.config)
    measure = partial(sensitivities, checkpoint, how, texts, partial(progress, "sensitivity"))
    found = measure() if keep is None else kept(keep / ".sensitivities.json", measure)
    if not np.isfinite([*found.values()]).all():
        problem = "it computes what is no number of the text that it is measured with: the weights are broken"
        raise CheckpointError(checkpoint.source_name, f"{problem}, or too large for float32")
    plain, small, eight = (
        plan_weights(checkpoint.config, other).by_name
        for other in (how, replace(how, block_size=SMALL_BLOCK), replace(how, bits=8))
    )
    steps: list[_Step] = []
    for name, sensitivity in found.items():
        spared = saved_by_small_blocks(checkpoint, how, plain[name]) * sensitivity
        first = _Step(name, 4, spared, _stored(small[name]) - _stored(plain[name]))
        second = _Step(name, 8, sensitivity - spared, _stored(eight[name]) - _stored(small[name]))
        if first.bytes <= 0 or first.gain * second.bytes <= second.gain * first.bytes:
            steps.append(_Step(name, 8, sensitivity, _stored(eight[name]) - _stored(plain[name])))
        else:
            steps += first, second
    return sorted(steps, key=lambda step: step.gain / step.bytes, reverse=True)


def _stored(matrices: tuple[Matrix, ...]) -> int:
    return sum(matrix.nbytes for matrix in matrices)


def _weight_bytes(checkpoint: Checkpoint, recipe: Recipe) -> int:
    architecture = replace(checkpoint.config, max_positions=recipe.positions(checkpoint.config))
    return plan_weights(architecture, recipe.quantization(architecture)).file.size


def _takes_at_most(checkpoint: Checkpoint, room: int, recipe: Recipe) -> bool:
    return _weight_bytes(checkpoint, recipe) <= room


def _bytes_beside_the_weights(checkpoint: Checkpoint, recipe: Recipe) -> int:
    """Return what graph, tokenizer and the small files take at most: norms and scales are as long whatever they say."""
    plain = describe(checkpoint, recipe, _TRIAL)
    every = tuple(plan_weights(plain.architecture, plain.quantization).by_name)
    manifest = replace(plain, quantization=replace(plain.quantization, eight_bits=every, small_blocks=every))
    shape, nothing = manifest.architecture, np.zeros(manifest.architecture.hidden_size, np.float32)
    scale = np.zeros((shape.n_layers, shape.n_kv_heads, shape.head_dim), np.float32)
    weights = plan_weights(shape, manifest.quantization)
    scales = CacheScales(scale, scale) if recipe.cache == "int8" else None
    graph = graph_of(manifest, weights, lambda _: nothing, scales)
    return len(graph) + len(checkpoint.tokenizer_json()) + len(manifest.to_json().encode()) + _SMALL_FILES


class _Trials:
    """Bundles with the first so many steps, made to be measured."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        recipe: Recipe,
        texts: list[list[int]],
        held_out: list[list[int]],
        folder: Path,
        progress: Progress,
    ) -> None:
        self.texts = texts
        self._checkpoint, self._recipe, self._folder, self._progress = checkpoint, recipe, folder, progress
        self._held_out = held_out
        self._steps = _by_gain(checkpoint, recipe, texts, progress, folder)

    @cached_property
    def _expected(self) -> list[Float32]:
        return list(forward_all(self._checkpoint, self._held_out))

    def __len__(self) -> int:
        """Return how many steps there are."""
        return len(self._steps)

    def recipe(self, count: int) -> Recipe:
        """Return the recipe with so many steps."""
        if count == len(self._steps):
            return replace(self._recipe, bits=8)
        recipe = self._recipe
        for step in self._steps[:count]:
            recipe = step.taken(recipe)
        return recipe

    def kl(self, count: int) -> float:
        """Return what a bundle measures, which is made for it where that is not known yet."""
        return kept(self._folder / f".kl-{count}.json", partial(self._measured, count))

    def clear(self) -> None:
        """Make room: what was measured stays."""
        shutil.rmtree(self._folder / _TRIAL, ignore_errors=True)

    def _measured(self, count: int) -> float:
        out = self._folder / _TRIAL
        export(self._checkpoint, self.recipe(count), out, self._progress, overwrite=True, texts=self.texts)
        return compare(Bundle.open(out), self._held_out, self._expected).kl


def _nearest_enough(trials: _Trials, max_kl: float) -> Choice:
    """Return the choice of the fewest steps whose bundle is so near."""
    few, many = 0, len(trials)
    near = trials.kl(many)
    if near > max_kl:
        raise MaxKlError(max_kl, near)
    if (far := trials.kl(few)) <= max_kl:
        many, near = few, far
    while many - few > 1:
        middle = (few + many) // 2
        if (found := trials.kl(middle)) <= max_kl:
            many, near = middle, found
        else:
            few = middle
    return Choice(trials.recipe(many), trials.texts, near)
