"""How much there is to do for each matrix: what a progress bar counts, and what time is left is told from.

Counted are the multiplications of products of matrices; what is no such product counts as many as take that long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from edge_assistant.bundle import Architecture
    from edge_assistant_export.weights import Matrix, Weights

# For a weight: plain rounding, and coordinate descent with each grid that it tries (measured with AVX-512).
_NEAREST: Final = 3_000
_DESCENT: Final = 1_250
_GRIDS: Final = 5 + 1
_GRIDS_WITH_ZERO_POINTS: Final = 15 + 3


Spent = Callable[[float], None]
"""Told of effort step by step."""


class Effort(NamedTuple):
    """For the matrices that read one input."""

    passing: float
    """To take the texts through them."""
    preparing: float
    """To know what they meet."""
    rounding: float

    @property
    def whole(self) -> float:
        """All of it."""
        return self.passing + self.preparing + self.rounding


def nearest(weights: Weights) -> dict[str, Effort]:
    """Return what it takes to round each weight for itself, by the first tensor's name of what reads one input."""
    return {
        name: Effort(0, 0, (rows.stop - rows.start) * matrix.row_size * _NEAREST)
        for matrix in weights.matrices
        for name, rows in matrix.shares()
    }


def gptq(weights: Weights, architecture: Architecture, positions: int) -> dict[str, Effort]:
    """Return what it takes to round each matrix for texts of so many positions, by the same names."""
    efforts = nearest(weights)
    layers = (matrix for layer in weights.layers for matrix in (layer.qkv, layer.o, *layer.feed_forward))
    for matrix in layers:
        met = positions
        if matrix.n_experts > 1:
            met = positions * architecture.n_experts_per_token // matrix.n_experts
        for name, rows in matrix.shares():
            efforts[name] = _gptq(matrix, rows, met, passing=2)
    head = weights.lm_head
    name, rows = next(head.shares())
    efforts[name] = _gptq(head, rows, positions, passing=0)
    if architecture.tied_embedding:  # it is rounded first, for what the checkpoint alone gives
        before = sum(one.passing for one in efforts.values()) / 2
        efforts[name] = efforts[name]._replace(passing=before, preparing=of_products(positions, head.row_size))
    return efforts


def untold(_effort: float) -> None:
    """Tell nobody."""


def of_products(positions: int, row_size: int) -> float:
    """Return what it takes to know H and U of so many inputs [positions, row_size]."""
    return of_sums(positions, row_size**2 / 2) + of_factor(row_size)


def of_sums(positions: int, count: float) -> float:
    """Return what it takes to make so many numbers of H, which is symmetric."""
    return positions * count


def of_factor(row_size: int) -> float:
    """Return what it takes to make U of H [row_size, row_size]."""
    return 0.5 * row_size**3


def of_turn(positions: int, row_size: int) -> float:
    """Return what it takes to know what all rows are to make up for, where inputs [positions, row_size] allow it."""
    return float(positions) * row_size**2 + float(row_size) ** 3


def turns(positions: int, row_size: int) -> bool:
    """Return whether that is less than to make up for it row by row: where there are as many inputs as channels."""
    return row_size <= positions


def of_passing(positions: int, rows: int, row_size: int) -> float:
    """Return what it takes to multiply inputs [positions, row_size] by a matrix [rows, row_size]."""
    return float(positions) * rows * row_size


def _gptq(matrix: Matrix, rows: slice, positions: int, *, passing: int) -> Effort:
    """Return what a share takes whose product is made for the texts so many times."""
    n_rows, row_size = rows.stop - rows.start, matrix.row_size
    if matrix.scales is None:
        return Effort(passing * of_passing(positions, n_rows, row_size), 0, n_rows * row_size)
    grids = _GRIDS if matrix.zero_points is None else _GRIDS_WITH_ZERO_POINTS
    once = turns(positions, row_size)
    # The aim, the errors that go to later columns, and the slopes of two sweeps.
    products = (row_size if once else 2 * positions + row_size) + row_size / 2 + 2 * row_size
    return Effort(
        passing * of_passing(positions, n_rows, row_size),
        of_products(positions, row_size) + (of_turn(positions, row_size) if once else 0),
        n_rows * row_size * (products + grids * _DESCENT),
    )
