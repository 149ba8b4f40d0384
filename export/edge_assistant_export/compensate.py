"""Quantisation that keeps a product where it was: coordinate descent over integers, scales and zero points, in numpy.

What counts is not how far a weight is from its integer but how far the product is from what it was. For inputs x
[n, in] a change D [out, in] of a matrix costs, as GPTQ has it (Frantar et al. 2022, arXiv 2210.17323),

    |x D^T|^2 = tr(D H D^T)        H = x^T x

and where the product is to move by R [n, out] besides, because its inputs are no longer those of the checkpoint,

    |x D^T - R|^2 = tr(D H D^T) - 2 tr(D P^T) + ...        P = R^T x, the pull

GPTQ starts at the best weights there are, w = W + P H^-1, and rounds them column by column; each time the columns still
to come take up what the rounding of this one did to the product. With H^-1 = U^T U and U upper triangular:

    q = round(w[:, j])                    error = (w[:, j] - q) / U[j, j]
    w[:, j+1:] -= error * U[j, j+1:]

Then all columns are gone through several times more, as in QuantEase (Behdin et al. 2023, arXiv 2309.01885): with
G = D H - P, half the gradient, a weight alone is best at w - G[j] / H[j, j], is rounded there, and G moves by its
change times H[j]. A block tries a few scales and zero points about its own; each is refitted to the integers that came
of it, in closed form under H, and the best is kept if it is better than what was: so the cost never rises. H is damped:
a text of some thousand tokens has not seen everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from edge_assistant_export.quantize import (
    Float32,
    Packed,
    grid,
    inverse_of,
    n_blocks,
    pack,
    pack_zero_points,
    round_to_bf16,
)

# What is added to the diagonal of H, as a share of its mean.
_DAMPING: Final = 0.02
# How often all columns are gone through, and how often those of a block for each scale that it tries.
_SWEEPS: Final = 2
_PASSES: Final = 2
# Scales that are tried, as shares of the one that fits the integers best.
_SHARES: Final = (1.0, 0.94, 1.06, 0.88, 1.12)
# A gain smaller than this share of the weights' own cost is rounding.
_LEAST_GAIN: Final = np.float32(1e-6)


class Products(NamedTuple):
    """What is known of the inputs of a matrix."""

    damped: Float32
    """H [in, in]."""
    factor: Float32
    """U [in, in]."""


def products_of(x: Float32) -> Products:
    """Return H and U of inputs x [n, in].

    Raises:
        numpy.linalg.LinAlgError: H has no inverse, or is not finite.
    """
    damped = x.T @ x
    if not np.isfinite(damped.sum()):
        raise np.linalg.LinAlgError("it is not finite")
    damped[np.diag_indices_from(damped)] += _DAMPING * float(np.mean(np.diagonal(damped))) or 1.0
    # Turned by 180 degrees, the lower triangle L of H = L L^T is an upper one R with H = R R^T, and U = R^-1.
    lower = np.linalg.cholesky(damped[::-1, ::-1])
    factor: Float32 = np.linalg.inv(lower[::-1, ::-1]).astype(np.float32, copy=False)
    return Products(damped, factor)


def compensated(
    weight: Float32,
    products: Products,
    bits: int,
    block_size: int,
    *,
    zero_points: bool = False,
    pull: Float32 | None = None,
) -> Packed:
    """Quantise a matrix [n_rows, row_size] to 4 or 8 bits a weight; `pull` is P [n_rows, row_size].

    Rows do not depend on each other: any part of the rows may be given alone.
    """
    n_rows, row_size = weight.shape
    aim = weight
    if pull is not None:
        by_factor: Float32 = pull @ products.factor.T
        aim = weight + by_factor @ products.factor
    blocks = _greedy(aim, products.factor, bits, block_size, zero_points=zero_points)
    change = blocks.values(slice(0, row_size), block_size) - weight.T
    slope = products.damped @ change
    if pull is not None:
        slope -= pull.T
    for _ in range(_SWEEPS):
        for number in range(len(blocks.scales)):
            columns = slice(number * block_size, min((number + 1) * block_size, row_size))
            change = blocks.improve(number, columns, products.damped[columns, columns], slope[columns])
            slope += products.damped[:, columns] @ change
    blocks.integers[row_size:] = blocks.zeros[-1]  # what fills up the last block stays worth nothing
    in_blocks = blocks.integers.reshape(-1, block_size, n_rows).transpose(1, 2, 0).reshape(block_size, -1)
    return Packed(
        pack(in_blocks, bits).reshape(n_rows, len(blocks.scales), -1),
        np.ascontiguousarray(blocks.scales.T),
        pack_zero_points(blocks.zeros.T, bits) if zero_points else None,
    )


def _greedy(weight: Float32, factor: Float32, bits: int, block_size: int, *, zero_points: bool) -> _Blocks:
    """Round each column once, GPTQ's way; a block's grid is found when its first column is reached."""
    n_rows, row_size = weight.shape
    n, top = n_blocks(row_size, block_size), 2**bits - 1
    left = np.zeros((n * block_size, n_rows), np.float32)
    left[:row_size] = weight.T
    scales, zeros = (np.empty((n, n_rows), np.float32) for _ in range(2))
    blocks = _Blocks(np.zeros_like(left), scales, zeros, top, zero_points)
    for number in range(n):
        start, stop = number * block_size, min((number + 1) * block_size, row_size)
        scale, zero = grid(left[start : start + block_size], bits, zero_points=zero_points)
        scales[number], zeros[number], inverse = scale, zero, inverse_of(scale)
        errors = np.empty((stop - start, n_rows), np.float32)
        for at in range(start, stop):
            column = np.clip(np.rint(left[at] * inverse), -zero, top - zero)
            errors[at - start] = (left[at] - column * scale) / factor[at, at]
            left[at + 1 : stop] -= factor[at, at + 1 : stop, np.newaxis] * errors[at - start]
            blocks.integers[at] = column + zero
        left[stop:row_size] -= factor[start:stop, stop:].T @ errors
    return blocks


class _Found(NamedTuple):
    """What a block may become: the cost is that of the change, [n_rows]; the integers [columns, n_rows] are signed."""

    cost: Float32
    integers: Float32
    scale: Float32
    zero: Float32


class _Blocks(NamedTuple):
    """All blocks of a matrix, a row of it a column here."""

    integers: Float32
    """Unsigned, [row_size filled up, n_rows]."""
    scales: Float32
    """[blocks, n_rows]."""
    zeros: Float32
    """[blocks, n_rows]."""
    top: int
    """The largest integer."""
    free_zeros: bool
    """Whether zero points may change; scales are positive then."""

    def values(self, columns: slice, block_size: int) -> Float32:
        """Return the weights [columns, n_rows] that a board computes with."""
        zeros, scales = (np.repeat(each, block_size, axis=0)[columns] for each in (self.zeros, self.scales))
        found: Float32 = (self.integers[columns] - zeros) * scales
        return found

    def improve(self, number: int, columns: slice, products: Float32, slope: Float32) -> Float32:
        """Make a block better in place, and return by how much its weights moved, [columns, n_rows].

        `products` [columns, columns] is its part of H, `slope` [columns, n_rows] that of G^T.
        """
        scale, zero = self.scales[number], self.zeros[number]
        before = self.integers[columns] - zero
        now = before * scale
        target = products @ now - slope
        own_cost = np.einsum("ij,ij->j", now, products @ now)
        best = _Found(-_LEAST_GAIN * own_cost, before.copy(), scale.copy(), zero.copy())
        for tried_scale, tried_zero in self._candidates(before, products, target, scale, zero):
            integers = self._rounded(now, slope, products, tried_scale, tried_zero)
            for fitted in (tried_scale, self._fitted(integers, products, target, tried_scale)):
                change = integers * fitted - now
                cost = np.einsum("ij,ij->j", change, products @ change + 2 * slope)
                better = cost < best.cost
                for kept, new in zip(best, (cost, integers, fitted, tried_zero), strict=True):
                    np.copyto(kept, new, where=better)
        self.integers[columns] = best.integers + best.zero
        self.scales[number], self.zeros[number] = best.scale, best.zero
        moved: Float32 = best.integers * best.scale - now
        return moved

    def _candidates(
        self, integers: Float32, products: Float32, target: Float32, scale: Float32, zero: Float32
    ) -> Iterator[tuple[Float32, Float32]]:
        """Give scales and zero points [n_rows] about those that there are."""
        fitted = self._fitted(integers, products, target, scale)
        for shift in (0, -1, 1) if self.free_zeros else (0,):
            for share in _SHARES:
                yield round_to_bf16(fitted * np.float32(share)), np.clip(zero + np.float32(shift), 0, self.top)

    def _fitted(self, integers: Float32, products: Float32, target: Float32, otherwise: Float32) -> Float32:
        """Return the scales [n_rows] that cost least with signed integers, as bf16 holds them."""
        squares = np.einsum("ij,ij->j", integers, products @ integers)
        dot = np.einsum("ij,ij->j", integers, target)
        scale = round_to_bf16(np.divide(dot, squares, out=otherwise.copy(), where=squares > 0))
        fits = scale > 0 if self.free_zeros else scale != 0
        return np.where(fits, scale, otherwise)

    def _rounded(self, now: Float32, slope: Float32, products: Float32, scale: Float32, zero: Float32) -> Float32:
        """Return signed integers [columns, n_rows], each rounded where it is best beside the others as they are."""
        now, slope, inverse = now.copy(), slope.copy(), inverse_of(scale)
        lowest, highest = -zero, self.top - zero
        integers = np.empty_like(now)
        for _ in range(_PASSES):
            for at, (column, costs) in enumerate(zip(integers, products, strict=True)):
                np.rint((now[at] - slope[at] / costs[at]) * inverse, out=column)
                np.clip(column, lowest, highest, out=column)
                value = column * scale
                slope += costs[:, np.newaxis] * (value - now[at])
                now[at] = value
        return integers
