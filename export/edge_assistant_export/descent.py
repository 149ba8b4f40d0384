"""Coordinate descent over the integers of one block of columns, for many rows and many scales at once.

With H its part [columns, columns] of all products and G = D H half the gradient there, a weight alone is best at
w - G[j] / H[j, j], is rounded there, and G moves by its change times H[j]. All is counted in steps of the scale that
is tried, so that a change is a whole number, and columns are gone through in halves of halves: what the first changes
is brought to the second in one product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from edge_assistant_export.quantize import Float32, inverse_of, round_to_bf16

# How often the columns are gone through for each scale that is tried.
_PASSES: Final = 2
SHARES: Final = (1.0, 0.94, 1.06, 0.88, 1.12)
"""Scales that are worth a try, as shares of the one that fits the integers best."""
# Zero points that are tried, from the one there is.
_SHIFTS: Final = np.array([0, -1, 1], np.float32)
# A gain smaller than this share of the weights' own cost is rounding.
_LEAST_GAIN: Final = np.float32(1e-6)
# Columns that are gone through one by one, and numbers in a column: enough that numpy's calls do not count, few
# enough that what is worked on stays in the cache.
_ONE_BY_ONE: Final = 16
_WIDE: Final = 4096


class Grid(NamedTuple):
    """What a block's integers mean: `(integer - zero) * scale`."""

    scale: Float32
    """[rows]."""
    zero: Float32
    """[rows]."""


def improved(
    integers: Float32,
    grid: Grid,
    products: Float32,
    slope: Float32,
    top: int,
    *,
    free_zeros: bool,
    shares: Sequence[float] = SHARES,
) -> tuple[Float32, Grid]:
    """Return signed integers [columns, rows] and a grid that cost no more than those given, row by row.

    `products` is H [columns, columns], `slope` G^T [columns, rows], `top` the largest unsigned integer; zero points
    may change if they are free, and scales are positive then. `shares` are the scales that are tried, as SHARES has it.
    """
    n_rows = integers.shape[1]
    found, scale, zero = np.empty_like(integers), np.empty_like(grid.scale), np.empty_like(grid.zero)
    tried = _Trials(np.array(shares, np.float32)[:, np.newaxis], _SHIFTS if free_zeros else _SHIFTS[:1])
    step = max(1, _WIDE // (tried.shares.size * tried.shifts.size))
    for start in range(0, n_rows, step):
        some = slice(start, start + step)
        one = _Rows(integers[:, some], Grid(grid.scale[some], grid.zero[some]), products, slope[:, some], top)
        found[:, some], (scale[some], zero[some]) = one.improved(tried)
    return found, Grid(scale, zero)


class _Trials(NamedTuple):
    """What is tried: each share with each shift."""

    shares: Float32
    """[shares, 1]."""
    shifts: Float32
    """[shifts]; where there is but one, zero points are not free, and scales may be negative."""


class _Rows:
    """Some rows of a block; all arrays are [columns, rows] or [rows], those of what is tried [..., tried, rows]."""

    def __init__(self, integers: Float32, grid: Grid, products: Float32, slope: Float32, top: int) -> None:
        self._integers, self._grid, self._products, self._slope, self._top = integers, grid, products, slope, top
        self._now = integers * grid.scale
        by_now = products @ self._now
        self._target = by_now - slope
        self._least_gain = _LEAST_GAIN * np.einsum("ij,ij->j", self._now, by_now)

    def improved(self, trials: _Trials) -> tuple[Float32, Grid]:
        """Return the integers and the grid that cost least of all that is tried, or what there is."""
        positive = trials.shifts.size > 1
        scale, zero = self._tried(trials, positive=positive)
        integers, slope = self._rounded(scale, zero)
        # What each costs with its scale, and with the scale that fits its integers best: the cost is a parabola in it.
        along, dot = (np.einsum("itj,itj->tj", integers, one) for one in (slope, self._target[:, np.newaxis]))
        change = integers * scale
        change -= self._now[:, np.newaxis]
        slope += self._slope[:, np.newaxis]
        cost = np.einsum("itj,itj->tj", change, slope)
        squares = (along + dot) * inverse_of(scale)
        fitted = _fitted(dot, squares, scale, positive=positive)
        step = fitted - scale
        costs = np.stack((cost, cost + step * (2 * along + step * squares)), axis=1).reshape(-1, len(self._least_gain))
        best = costs.argmin(axis=0)
        better = np.take_along_axis(costs, best[np.newaxis], axis=0)[0] < -self._least_gain
        number, rows = best // 2, np.arange(len(best))
        scales = np.where(best % 2, fitted[number, rows], scale[number, rows])
        grid = Grid(*(np.where(better, *pair) for pair in zip((scales, zero[number, rows]), self._grid, strict=True)))
        return np.where(better, integers[:, number, rows], self._integers), grid

    def _tried(self, trials: _Trials, *, positive: bool) -> tuple[Float32, Float32]:
        """Return scales and zero points about those that there are, [tried, rows] each."""
        squares = np.einsum("ij,ij->j", self._integers, self._products @ self._integers)
        dot = np.einsum("ij,ij->j", self._integers, self._target)
        fitted = _fitted(dot, squares, self._grid.scale, positive=positive)
        scale = np.tile(round_to_bf16(trials.shares * fitted), (trials.shifts.size, 1))
        shifts = np.repeat(trials.shifts, trials.shares.size)[:, np.newaxis]
        zero = np.clip(shifts + self._grid.zero, 0, self._top)
        return scale, zero

    def _rounded(self, scale: Float32, zero: Float32) -> tuple[Float32, Float32]:
        """Return signed integers [columns, tried, rows], each rounded where it is best, and G with them."""
        shape, inverse = (len(self._now), *scale.shape), inverse_of(scale)
        tried = _Tried(
            (self._now[:, np.newaxis] * inverse).reshape(len(self._now), -1),
            (self._slope[:, np.newaxis] * inverse).reshape(len(self._now), -1),
            self._products,
            -zero.reshape(-1),
            self._top - zero.reshape(-1),
        )
        for _ in range(_PASSES):
            tried.descend(0, len(self._now))
        slope = tried.slope.reshape(shape)
        slope *= scale
        return tried.at.reshape(shape), slope


class _Tried:
    """Weights on their way to integers, in steps of their scales: [columns, all that is tried]."""

    def __init__(self, at: Float32, slope: Float32, products: Float32, lowest: Float32, highest: Float32) -> None:
        self.at, self.slope, self._products = at, slope, products
        self._lowest, self._highest = lowest, highest
        self._moved = np.empty_like(at)

    def descend(self, start: int, stop: int) -> None:
        """Go through some columns once; their slopes are then those of what came of them."""
        if stop - start <= _ONE_BY_ONE:
            self._one_by_one(start, stop)
            self._bring(slice(start, stop), slice(start, stop))
            return
        middle = (start + stop) // 2
        first, second = slice(start, middle), slice(middle, stop)
        self.descend(start, middle)
        self._bring(first, second)
        self.descend(middle, stop)
        self._bring(second, first)

    def _bring(self, moved: slice, to: slice) -> None:
        self.slope[to] += self._products[to, moved] @ self._moved[moved]

    def _one_by_one(self, start: int, stop: int) -> None:
        for column in range(start, stop):
            value, products = self._moved[column], self._products[column]
            if column > start:
                np.dot(products[start:column], self._moved[start:column], out=value)
                value += self.slope[column]
                value *= -1 / products[column]
            else:
                np.multiply(self.slope[column], -1 / products[column], out=value)
            value += self.at[column]
            np.rint(value, out=value)
            np.maximum(value, self._lowest, out=value)
            np.minimum(value, self._highest, out=value)
            self.at[column], value[:] = value, value - self.at[column]


def _fitted(dot: Float32, squares: Float32, otherwise: Float32, *, positive: bool) -> Float32:
    """Return the scales that cost least, as bf16 holds them, where there is one."""
    scale = round_to_bf16(np.divide(dot, squares, out=otherwise.copy(), where=squares > 0))
    return np.where(scale > 0 if positive else scale != 0, scale, otherwise)
