"""Numbers in the type in which a bundle stores them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge_assistant.errors import Float16RangeError


def as_stored(array: npt.NDArray[Any], dtype: npt.DTypeLike, name: str) -> npt.NDArray[Any]:
    """Return a tensor's numbers, which are finite, in the type in which they are stored; `name` is for the message.

    Raises:
        Float16RangeError: That is float16, and one lies beyond it.
    """
    with np.errstate(over="ignore"):
        stored = array.astype(dtype, copy=False)
    if stored.dtype == np.float16 and not np.isfinite(stored).all():
        raise Float16RangeError(name, float(np.abs(array).max()))
    return stored
