"""Upper triangular matrices, by products of large parts: numpy alone has none of this, and inverts by elimination."""

from __future__ import annotations

from typing import Final

import numpy as np

from edge_assistant_export.quantize import Float32

# Parts of this size are inverted whole, and multiplied whole.
_INVERTED: Final = 128
_MULTIPLIED: Final = 1024


def factor_of_inverse(symmetric: Float32) -> Float32:
    """Return the upper triangular U [n, n] with U^T U = S^-1 of a symmetric S [n, n], which stays as it is.

    Raises:
        numpy.linalg.LinAlgError: S is not positive definite.
    """
    # Turned by 180 degrees, the lower triangle L of S = L L^T is an upper one R with S = R R^T, and U = R^-1.
    lower = np.linalg.cholesky(symmetric[::-1, ::-1])
    upper = np.ascontiguousarray(lower[::-1, ::-1])
    del lower
    _invert(upper)
    return upper


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


def _invert(upper: Float32) -> None:
    """Make a triangle its inverse: that of [[A, B], [0, C]] is [[A^-1, -A^-1 B C^-1], [0, C^-1]]."""
    if len(upper) <= _INVERTED:
        upper[:] = np.triu(np.linalg.inv(upper))
        return
    middle = len(upper) // 2
    first, second, between = upper[:middle, :middle], upper[middle:, middle:], upper[:middle, middle:]
    _invert(first)
    _invert(second)
    np.negative(times_upper(first @ between, second), out=between)
