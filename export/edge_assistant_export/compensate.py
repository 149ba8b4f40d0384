"""Quantisation that keeps a product where it was: coordinate descent over integers, scales and zero points, in numpy.

What counts is not how far a weight is from its integer but how far the product is from what it was. For inputs x
[n, in] a change D [out, in] of a matrix costs, as GPTQ has it (Frantar et al. 2022, arXiv 2210.17323),

    |x D^T|^2 = tr(D H D^T)        H = x^T x

and where the product is to move by R [n, out] besides, because its inputs are no longer those of the checkpoint,

    |x D^T - R|^2 = tr(D H D^T) - 2 tr(D P^T) + ...        P = R^T x, the pull

The best weights there are, w = W + P H^-1, are the aim: for whatever is stored in place of them the cost is that of its
distance from the aim under H, and a constant. GPTQ starts at the aim and rounds it column by column; each time the
columns still to come take up what rounding this one did to the product. With H^-1 = U^T U and U upper triangular:

    q = round(w[:, j])                    error = (w[:, j] - q) / U[j, j]
    w[:, j+1:] -= error * U[j, j+1:]

Then all columns are gone through twice more, as in QuantEase (Behdin et al. 2023, arXiv 2309.01885), a block at a time
(`descent.py`): each block tries a few scales and zero points about its own, and integers for each; the scale is then
refitted to its integers, in closed form under H, and the best is kept if it is better than what was: so the cost never
rises. The second time the scale that fits is tried alone: the others gain nothing then, and take two fifths of the
time. H is damped: a text of some thousand tokens has not seen everything, and a short one much less.

Most of the arithmetic is in products of large parts: columns are rounded in halves of halves, of which the first brings
all its errors to the second at once, and a block's slope, half the gradient, is made when the block is reached.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from edge_assistant_export.descent import SHARES, Grid, improved
from edge_assistant_export.effort import Spent, of_sums, untold
from edge_assistant_export.quantize import Float32, Packed, grid, inverse_of, n_blocks, pack, pack_zero_points
from edge_assistant_export.triangular import factor_of_inverse, times_upper, times_upper_transposed

# What is added to the diagonal of H, as a share of its mean: where inputs are few for their channels, as with a short
# text or with an expert that is seldom chosen, they would be fitted rather than the language, so it is more then. With
# 129 tokens stories260K comes to a KL divergence of 0.11, which is 0.16 otherwise, and 0.12 without GPTQ.
_DAMPING: Final = 0.02
_MANY: Final = 4
"""Inputs for each channel that are enough."""
_SCARCE: Final = 0.5
_MOST_DAMPING: Final = 1.0
# The scales that are tried each time all columns are gone through: the first time those about a block's own too.
_SWEEPS: Final = (SHARES, SHARES[:1])
# Columns of H that are made at a time, and columns that are rounded one by one.
_PANEL: Final = 2048
_ONE_BY_ONE: Final = 16


class Products(NamedTuple):
    """What is known of the inputs of a matrix."""

    damped: Float32
    """H [in, in]."""
    factor: Float32
    """U [in, in]."""

    def by_inverse(self, pull: Float32) -> Float32:
        """Return P H^-1 [n_rows, in] of a pull P [n_rows, in]."""
        return times_upper(times_upper_transposed(pull, self.factor), self.factor)


def products_of(x: Float32, spent: Spent = untold) -> Products:
    """Return H and U of inputs x [n, in]; `spent` is told the effort step by step, as `effort.py` counts it.

    Raises:
        numpy.linalg.LinAlgError: H has no inverse, or is not finite.
    """
    n, row_size = x.shape
    damped = np.empty((row_size, row_size), np.float32)
    for start in range(0, row_size, _PANEL):
        panel, before = slice(start, start + _PANEL), slice(0, start)
        np.matmul(x[:, panel].T, x[:, before], out=damped[panel, before])
        damped[before, panel] = damped[panel, before].T
        damped[panel, panel] = x[:, panel].T @ x[:, panel]
        width = min(_PANEL, row_size - start)
        spent(of_sums(n, width * (start + width / 2)))
    if not np.isfinite(damped.sum()):
        raise np.linalg.LinAlgError("it is not finite")
    damped[np.diag_indices_from(damped)] += _damping(n, row_size) * float(np.mean(np.diagonal(damped))) or 1.0
    return Products(damped, factor_of_inverse(damped, spent))


def _damping(n: int, row_size: int) -> float:
    """Return the share for inputs [n, row_size]."""
    scarcity = max(0.0, row_size / n - 1 / _MANY)
    return min(_MOST_DAMPING, _DAMPING + _SCARCE * scarcity)


def compensated(aim: Float32, products: Products, bits: int, block_size: int, *, zero_points: bool = False) -> Packed:
    """Quantise a matrix, of which `aim` [n_rows, row_size] are the best weights, to 4 or 8 bits a weight.

    Rows do not depend on each other: any part of the rows may be given alone.
    """
    n_rows, row_size = aim.shape
    blocks = _Greedy(aim, products.factor, bits, block_size, zero_points=zero_points).rounded()
    beside = blocks.integers[:row_size] * np.repeat(blocks.scales, block_size, axis=0)[:row_size] - aim.T
    for shares in _SWEEPS:
        for number in range(len(blocks.scales)):
            columns = slice(number * block_size, min((number + 1) * block_size, row_size))
            slope = products.damped[columns] @ beside
            before, held = blocks.integers[columns], Grid(blocks.scales[number], blocks.zeros[number])
            part = np.ascontiguousarray(products.damped[columns, columns])
            integers, found = improved(before, held, part, slope, 2**bits - 1, free_zeros=zero_points, shares=shares)
            beside[columns] += integers * found.scale - before * held.scale
            blocks.integers[columns], blocks.scales[number], blocks.zeros[number] = integers, *found
    unsigned = blocks.integers + np.repeat(blocks.zeros, block_size, axis=0)
    in_blocks = unsigned.reshape(-1, block_size, n_rows).transpose(1, 2, 0).reshape(block_size, -1)
    return Packed(
        pack(in_blocks, bits).reshape(n_rows, len(blocks.scales), -1),
        np.ascontiguousarray(blocks.scales.T),
        pack_zero_points(blocks.zeros.T, bits) if zero_points else None,
    )


class _Blocks(NamedTuple):
    """All blocks of a matrix, a row of it a column here."""

    integers: Float32
    """Signed, [row_size filled up with zeros, n_rows]."""
    scales: Float32
    """[blocks, n_rows]."""
    zeros: Float32
    """[blocks, n_rows]."""


class _Greedy:
    """Rounds each column once, GPTQ's way; a block's grid is found when its first column is reached."""

    def __init__(self, aim: Float32, factor: Float32, bits: int, block_size: int, *, zero_points: bool) -> None:
        self._factor, self._bits, self._block_size, self._zero_points = factor, bits, block_size, zero_points
        self._row_size = aim.shape[1]
        shape = n_blocks(self._row_size, block_size), len(aim)
        # What is left to round; where a column has been, its error.
        self._left = np.zeros((shape[0] * block_size, len(aim)), np.float32)
        self._left[: self._row_size] = aim.T
        self._blocks = _Blocks(np.zeros_like(self._left), np.empty(shape, np.float32), np.empty(shape, np.float32))

    def rounded(self) -> _Blocks:
        """Return integers and grids."""
        self._round_blocks(0, len(self._blocks.scales))
        return self._blocks

    def _round_blocks(self, start: int, stop: int) -> None:
        """Round some blocks, in halves."""
        first, last = start * self._block_size, min(stop * self._block_size, self._row_size)
        if stop - start == 1:
            found = grid(self._left[first : first + self._block_size], self._bits, zero_points=self._zero_points)
            self._blocks.scales[start], self._blocks.zeros[start] = found
            self._round_columns(first, last, Grid(*found))
            return
        middle = (start + stop) // 2
        self._round_blocks(start, middle)
        self._bring(first, middle * self._block_size, last)
        self._round_blocks(middle, stop)

    def _round_columns(self, start: int, stop: int, found: Grid) -> None:
        """Round some columns of a block, in halves."""
        if stop - start <= _ONE_BY_ONE:
            self._one_by_one(start, stop, found)
            return
        middle = (start + stop) // 2
        self._round_columns(start, middle, found)
        self._bring(start, middle, stop)
        self._round_columns(middle, stop, found)

    def _bring(self, start: int, middle: int, stop: int) -> None:
        """Let the columns behind the middle take up the errors of those before it."""
        self._left[middle:stop] -= self._factor[start:middle, middle:stop].T @ self._left[start:middle]

    def _one_by_one(self, start: int, stop: int, found: Grid) -> None:
        inverse, top = inverse_of(found.scale), 2**self._bits - 1
        for at in range(start, stop):
            weight = self._left[at] - self._factor[start:at, at] @ self._left[start:at]
            integers = self._blocks.integers[at]
            np.rint(weight * inverse, out=integers)
            np.clip(integers, -found.zero, top - found.zero, out=integers)
            self._left[at] = (weight - integers * found.scale) / self._factor[at, at]
