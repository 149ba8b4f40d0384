"""GPTQ, matrix by matrix: each is rounded for the inputs that the matrices rounded before it give.

Every calibration text passes through the layers twice at once, in the first half of the positions as the checkpoint
has it, in the second as the bundle will. Where a matrix W meets x in the one and x' in the other, what is rounded is
not only to keep W x', but to move it towards W x (asymmetric calibration as in GPTAQ, Li et al. 2025, arXiv
2504.02692), and, where the product is added to the residual stream, the stream towards that of the checkpoint (as in
QEP, Arai and Ichikawa 2025, arXiv 2504.09629):

    R = _SHARE * (x W^T - x' W^T + h - h')

with H of x'. Of what would make up for all that went before only a share is asked for, since the text is short: it
would be fitted rather than the language. A mixture sends both halves to the experts that the first one wants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_assistant_export.compensate import Products, compensated, products_of
from edge_assistant_export.quantize import Float32, Packed, Quantizer
from edge_assistant_export.reference import Int64, Observer, Tensors

# The share of the checkpoint's lead that a matrix is to make up for.
_SHARE: Final = np.float32(0.5)

Write = Callable[[str, Quantizer], None]
"""Quantises the matrices that read one input, by the name of the first, where they are to be."""


class Sequential(Observer):
    """Both halves of the positions on their way through the layers."""

    positions = np.iinfo(np.int64).max  # halves of a part would not be those of the whole

    def __init__(self, quantised: Tensors, write: Write) -> None:
        """`quantised` is the model whose matrices `write` has written so far."""
        self._quantised, self._write = quantised, write

    def inputs(self, name: str, x: Float32, residual: Float32 | None = None) -> None:
        """Write the matrices that read x."""
        exact, found = _halves(x)
        lead = None if residual is None else np.subtract(*_halves(residual))
        if name != "embedding":  # tied to the head, it was written when the first text was read
            self._write(name, Mended(products_of(found), exact, found, lead))

    def routes(self, layer: int, chosen: Int64) -> Int64:  # noqa: ARG002
        """Send a position to the same experts in both halves, so that what meets an expert is a pair."""
        exact, _ = _halves(chosen)
        return np.concatenate((exact, exact))

    def embed(self, model: Tensors, ids: Int64) -> Float32:
        """Read rows of the checkpoint's embedding and of what became of it."""
        return _both(partial(super().embed, model), partial(super().embed, self._quantised))(ids)

    def product(self, model: Tensors, name: str) -> Callable[[Float32], Float32]:
        """Multiply by the checkpoint's matrix and by what became of it."""
        return _both(super().product(model, name), super().product(self._quantised, name))


def embedding_quantizer(states: list[Float32]) -> Quantizer:
    """Return what rounds an embedding that is also the head; `states` [n, hidden] are those of texts at the end."""
    return Mended(products_of(np.concatenate(states)))


@dataclass(frozen=True)
class Mended:
    """Rounds matrices that read one input, by coordinate descent."""

    products: Products
    """H and U of what they meet."""
    exact: Float32 | None = None
    """What they meet in the checkpoint, [n, in]; None: what they meet in the bundle."""
    found: Float32 | None = None
    """What they meet in the bundle, [n, in]."""
    lead: Float32 | None = None
    """By how much the residual stream of the checkpoint is ahead of the bundle's, [n, out]."""

    def __call__(self, weight: Float32, rows: slice, *, bits: int, block_size: int, zero_points: bool) -> Packed:
        """Return some rows of one of the matrices."""
        pull = self._pull(weight, rows)
        return compensated(weight, self.products, bits, block_size, zero_points=zero_points, pull=pull)

    def _pull(self, weight: Float32, rows: slice) -> Float32 | None:
        """Return R^T x' [n_rows, in]."""
        if self.exact is None or self.found is None:
            return None
        ahead: Float32 = _SHARE * (self.exact @ weight.T - self.found @ weight.T)
        if self.lead is not None:
            ahead += _SHARE * self.lead[:, rows]
        pull: Float32 = ahead.T @ self.found
        return pull


def _halves(x: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return what belongs to the checkpoint and what belongs to the bundle."""
    middle = len(x) // 2
    return x[:middle], x[middle:]


def _both(
    exact: Callable[[npt.NDArray[Any]], Float32], found: Callable[[npt.NDArray[Any]], Float32]
) -> Callable[[npt.NDArray[Any]], Float32]:
    """Return what does one thing with the first half and the other with the second."""
    return lambda x: np.concatenate([each(half) for each, half in zip((exact, found), _halves(x), strict=True)])
