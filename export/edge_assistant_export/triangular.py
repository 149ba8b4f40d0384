"""Upper triangular matrices, by products of large parts: numpy alone has none of this, and inverts by elimination."""

from __future__ import annotations

from typing import Final

import numpy as np

from edge_assistant_export.effort import Spent, of_factor, untold
from edge_assistant_export.quantize import Float32

# Parts of this size are factored whole, and multiplied whole.
_FACTORED: Final = 128
_MULTIPLIED: Final = 1024


def factor_of_inverse(symmetric: Float32, spent: Spent = untold) -> Float32:
    """Return the upper triangular U [n, n] with U^T U = S^-1 of a symmetric S [n, n], which stays as it is.

    It takes no memory beside U but what a quarter of U takes, twice.

    Raises:
        numpy.linalg.LinAlgError: S is not positive definite.
    """
    factor = symmetric.copy()
    _factor(factor, spent)
    return factor


def times_upper(left: Float32, upper: Float32) -> Float32:
    """Return left [m, n] times an upper triangular matrix [n, n], without most of its zeros."""
    out = np.empty_like(left)
    for start in range(0, len(upper), _MULTIPLIED):
        stop = start + _MULTIPLIED
        np.matmul(left[:, :stop], upper[:stop, start:stop], out=out[:, start:stop])
    return out


def times_upper_transposed(left: Float32, upper: Float32) -> Float32:
    """Return left [m, n] times the transpose of an upper triangular matrix [n, n], without most of its zeros."""
    out = np.empty_like(left)
    for start in range(0, len(upper), _MULTIPLIED):
        stop = start + _MULTIPLIED
        np.matmul(left[:, start:], upper[start:stop, start:].T, out=out[:, start:stop])
    return out


def _factor(part: Float32, spent: Spent) -> None:
    """Make S = R R^T, with R upper triangular, R^-1 in its place.

    Of S = [[A, B], [B^T, C]] the factor is R = [[R1, B R2^-T], [0, R2]], where C = R2 R2^T and
    A - (B R2^-T) (B R2^-T)^T = R1 R1^T; and the inverse of [[R1, R12], [0, R2]] is
    [[R1^-1, -R1^-1 R12 R2^-1], [0, R2^-1]].
    """
    effort = of_factor(len(part))
    if len(part) <= _FACTORED:
        # Turned by 180 degrees, R is the lower triangle that there is a routine for.
        lower = np.linalg.cholesky(part[::-1, ::-1])
        part[:] = np.triu(np.linalg.inv(lower[::-1, ::-1]))
        spent(effort)
        return
    middle = len(part) // 2
    first, second, between = part[:middle, :middle], part[middle:, middle:], part[:middle, middle:]
    _factor(second, spent)
    between[:] = times_upper_transposed(between, second)
    first -= between @ between.T
    effort -= of_factor(middle) + of_factor(len(part) - middle)
    spent(effort / 2)
    _factor(first, spent)
    np.negative(times_upper(first @ between, second), out=between)
    part[middle:, :middle] = 0
    spent(effort / 2)
