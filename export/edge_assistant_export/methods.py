"""The ways in which weights become integers, one row of a table each.

A method is given the model and a place to write to, and has every matrix written; whatever it leaves is not in the
bundle. A new one is a module that has a class with what `Method` asks for, and a row in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from edge_assistant.errors import CheckpointError
from edge_assistant_export import effort
from edge_assistant_export.awq import Blocks, scaled
from edge_assistant_export.checkpoint import Checkpoint, ModelConfig
from edge_assistant_export.effort import Effort
from edge_assistant_export.passed import Passed, bytes_at_most
from edge_assistant_export.quantize import Float32, Packed, Quantizer, Rounding, quantize
from edge_assistant_export.reference import Tensors, hidden_states
from edge_assistant_export.sequential import Mended, Passing, Sequential
from edge_assistant_export.weights import Weights


class Target(Protocol):
    """Where the matrices are written to."""

    @property
    def written(self) -> Tensors:
        """The model as a board will compute with it, as far as it has been written."""

    @property
    def left(self) -> Sequence[str]:
        """What has not been written: the first tensor's name for all matrices that read the same input."""

    def write(self, names: Iterable[str], prepare: Callable[[], Quantizer], source: Tensors | None = None) -> None:
        """Write some of what is left, rounded where it is to be; from the checkpoint if nothing else is named.

        `prepare` returns what rounds, and is not called where a killed export has left all of it.
        """

    def skip(self, names: Sequence[str]) -> bool:
        """Count some of what is left as written where a killed export has left all of it; return whether it has."""

    def spent(self, effort: float) -> None:
        """Count effort beside that of rounding."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a method is to do."""

    checkpoint: Checkpoint
    texts: Sequence[Sequence[int]]
    """Ids of the calibration's texts; none for a method that reads none."""
    blocks: Mapping[str, Blocks]
    """How each tensor of the checkpoint will be rounded."""
    folder: Path
    """Where a file may be kept that the export is to find if it is killed and begun again."""


class Method(Protocol):
    """A way of rounding a model."""

    @property
    def reads_text(self) -> bool:
        """Whether it is calibrated."""

    @property
    def finds_zero_points(self) -> bool:
        """Whether blocks may have zero points of their own."""

    @property
    def scales_channels(self) -> bool:
        """Whether what a matrix reads is no longer what the checkpoint's reads."""

    def efforts(self, weights: Weights, config: ModelConfig, positions: int) -> Mapping[str, Effort]:
        """Return what there is to do for texts of so many positions, by the name of a share of the weights."""

    def keeps(self, config: ModelConfig) -> int:
        """Return the bytes that it takes at most of the job's folder, where they are many."""

    def __call__(self, job: Job, target: Target) -> Tensors:
        """Write every matrix, and return the model that was rounded: the checkpoint, or the same function of it."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """Each weight goes to the nearest integer of its block."""

    rounding: Rounding
    finds_zero_points: bool
    reads_text: bool = False
    scales_channels: bool = False

    def efforts(self, weights: Weights, config: ModelConfig, positions: int) -> Mapping[str, Effort]:  # noqa: ARG002
        """Return what there is to round."""
        return effort.nearest(weights)

    def keeps(self, config: ModelConfig) -> int:  # noqa: ARG002
        """Return that it is little."""
        return 0

    def __call__(self, job: Job, target: Target) -> Tensors:
        """Write every matrix."""
        target.write(target.left, lambda: self.quantize)
        return job.checkpoint

    def quantize(self, weight: Float32, rows: slice, *, bits: int, block_size: int, zero_points: bool) -> Packed:  # noqa: ARG002
        """Return some rows of a matrix: a `Quantizer`."""
        return quantize(weight, bits, block_size, self.rounding, zero_points=zero_points)


LEAST_SQUARES: Final = Nearest("least_squares", finds_zero_points=True)


@dataclass(frozen=True, slots=True)
class Gptq:
    """Each matrix keeps its products where the checkpoint has them, for what the matrices before it give."""

    reads_text: bool = True
    finds_zero_points: bool = True
    scales_channels: bool = False

    def efforts(self, weights: Weights, config: ModelConfig, positions: int) -> Mapping[str, Effort]:
        """Return what there is to do on the texts' way and for each matrix."""
        return effort.gptq(weights, config, positions)

    def keeps(self, config: ModelConfig) -> int:
        """Return what the texts are behind a layer, twice."""
        return bytes_at_most(config)

    def __call__(self, job: Job, target: Target) -> Tensors:
        """Write every matrix on the texts' way through the layers; experts that no text reached by least squares."""
        checkpoint = job.checkpoint
        try:
            if not checkpoint.config.tied_embedding:
                target.write(["embedding"], lambda: LEAST_SQUARES.quantize)
            elif not target.skip(["embedding"]):
                states = hidden_states(checkpoint, job.texts, observer=Passing(target.spent))
                target.write(["embedding"], lambda: Mended(np.concatenate(states), spent=target.spent))
            sequential = Sequential(
                target.written,
                lambda name, prepare: target.write([name], prepare),
                target.spent,
                Passed(job.folder / ".passed", target),
            )
            hidden_states(checkpoint, [*job.texts, *job.texts], observer=sequential)
        except np.linalg.LinAlgError as error:
            problem = f"GPTQ cannot weigh what passes through its layers ({error}): try --method least-squares"
            raise CheckpointError(checkpoint.source_name, problem) from error
        return LEAST_SQUARES(job, target)


@dataclass(frozen=True, slots=True)
class Awq:
    """Channels are scaled by what they meet, then each weight goes to the nearest integer."""

    reads_text: bool = True
    finds_zero_points: bool = True
    scales_channels: bool = True

    def efforts(self, weights: Weights, config: ModelConfig, positions: int) -> Mapping[str, Effort]:  # noqa: ARG002
        """Return what there is to round."""
        return effort.nearest(weights)

    def keeps(self, config: ModelConfig) -> int:  # noqa: ARG002
        """Return that it is little."""
        return 0

    def __call__(self, job: Job, target: Target) -> Tensors:
        """Write every matrix of the scaled model."""
        try:
            model = scaled(job.checkpoint, job.texts, job.blocks, job.folder / ".scales.npz")
        except FloatingPointError as error:
            problem = f"AWQ cannot weigh what passes through its layers ({error}): try --method least-squares"
            raise CheckpointError(job.checkpoint.source_name, problem) from error
        target.write(target.left, lambda: LEAST_SQUARES.quantize, model)
        return model


METHODS: Final[Mapping[str, Method]] = {
    "least_squares": LEAST_SQUARES,
    "maximum": Nearest("maximum", finds_zero_points=False),
    "gptq": Gptq(),
    "awq": Awq(),
}
"""Every method by the name that recipes and manifests call it."""
