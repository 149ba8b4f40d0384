"""Quantisation that mends its own errors: GPTQ (Frantar et al. 2022, arXiv 2210.17323), in plain numpy.

What counts is not how far a weight is from its integer but how far the product is from what it was. For inputs x
[n, in] a change D of a matrix costs the trace of D H D^T, with H = x^T x. So a matrix is rounded column by column,
and each time the columns still to come take up what the rounding of this one did to the product, as far as H says
that they can. With H^-1 = U^T U and U upper triangular:

    q = round(w[:, j])                    error = (w[:, j] - q) / U[j, j]
    w[:, j+1:] -= error * U[j, j+1:]

The scale of a block, and its zero point where it has one, are found when its first column is reached, by least squares
on the weights as they are by then.
H is damped: a text of some thousand tokens has not seen everything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from edge_assistant_export.quantize import (
    Float32,
    Packed,
    inverse_of,
    least_squares_scales,
    n_blocks,
    pack,
    pack_zero_points,
    round_to_bf16,
    zero_point_grid,
)
from edge_assistant_export.reference import Observer

# What is added to the diagonal of H, as a share of its mean.
_DAMPING: Final = 0.02


class Inputs(Observer):
    """Gathers x^T x of what every matrix multiplies, and hands on each one's factor as soon as it is known."""

    def __init__(self, found: Callable[[str, Float32], None]) -> None:
        """`found` is called with the name that `Observer.inputs` was told and the factor U, float32 [in, in]."""
        self._found = found
        self._name = ""
        self._products: Float32 | None = None

    def inputs(self, name: str, x: Float32) -> None:
        """Take in x [n, in]; when a name is new, that of before is complete."""
        if name != self._name:
            self.finish()
            self._name = name
        products = x.T @ x
        self._products = products if self._products is None else self._products + products

    def finish(self) -> None:
        """Hand on the last one."""
        products, self._products = self._products, None
        if products is not None:
            self._found(self._name, error_factor(products))


def error_factor(products: Float32) -> Float32:
    """Return U, upper triangular [in, in] with U^T U = H^-1, of H = x^T x [in, in], which is used up.

    Raises:
        numpy.linalg.LinAlgError: H has no inverse, or is not finite.
    """
    if not np.isfinite(products.sum()):
        raise np.linalg.LinAlgError("it is not finite")
    damping = _DAMPING * float(np.mean(np.diagonal(products))) or 1.0
    products[np.diag_indices_from(products)] += damping
    # Turned by 180 degrees, the lower triangle L of H = L L^T is an upper one R with H = R R^T, and U = R^-1.
    lower = np.linalg.cholesky(products[::-1, ::-1])
    factor: Float32 = np.linalg.inv(lower[::-1, ::-1]).astype(np.float32, copy=False)
    return factor


def compensated(weight: Float32, factor: Float32, bits: int, block_size: int, *, zero_points: bool = False) -> Packed:
    """Quantise a matrix [n_rows, row_size] to 4 or 8 bits a weight; `factor` is that of its inputs.

    Rows do not depend on each other: any part of the rows may be given alone.
    """
    n_rows, row_size = weight.shape
    blocks, top = n_blocks(row_size, block_size), 2**bits - 1
    left = np.zeros((blocks * block_size, n_rows), np.float32)
    left[:row_size] = weight.T
    stored = np.zeros_like(left)
    scales, zeros = (np.empty((blocks, n_rows), np.float32) for _ in range(2))
    for block in range(blocks):
        start, stop = block * block_size, min((block + 1) * block_size, row_size)
        scale, zero = _grid(left[start : start + block_size], factor, start, bits, zero_points=zero_points)
        inverse = inverse_of(scale)
        errors = np.empty((stop - start, n_rows), np.float32)
        for at in range(start, stop):
            column = np.clip(np.rint(left[at] * inverse), -zero, top - zero)
            error = (left[at] - column * scale) / factor[at, at]
            left[at + 1 : stop] -= factor[at, at + 1 : stop, np.newaxis] * error
            stored[at], errors[at - start] = column + zero, error
        stored[stop : start + block_size] = zero
        scales[block], zeros[block] = scale, zero
        left[stop:row_size] -= factor[start:stop, stop:].T @ errors
    in_blocks = stored.reshape(blocks, block_size, n_rows).transpose(1, 2, 0).reshape(block_size, -1)
    return Packed(
        pack(in_blocks, bits).reshape(n_rows, blocks, -1),
        np.ascontiguousarray(scales.T),
        pack_zero_points(zeros.T, bits) if zero_points else None,
    )


def _grid(columns: Float32, factor: Float32, start: int, bits: int, *, zero_points: bool) -> tuple[Float32, Float32]:
    """Return scales and zero points [n_rows] of a block [block_size, n_rows] whose first column is `start`.

    What an error in a column costs, once those behind it have taken up what they can, is 1 / U[j, j]^2.
    """
    if not zero_points:
        scales = round_to_bf16(least_squares_scales(columns, bits))
        return scales, np.full(len(scales), 2 ** (bits - 1), np.float32)
    costs = np.zeros(len(columns), np.float32)
    of_block = np.diagonal(factor)[start : start + len(columns)] ** -2
    costs[: len(of_block)] = of_block / of_block.max()
    return zero_point_grid(columns, bits, costs)
