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

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_assistant_export.compensate import compensated, products_of
from edge_assistant_export.effort import Spent, of_passing, of_turn, turns, untold
from edge_assistant_export.passed import Passed
from edge_assistant_export.quantize import Float32, Packed, Quantizer
from edge_assistant_export.reference import Int64, Observer, Tensors

# The share of the checkpoint's lead that a matrix is to make up for.
_SHARE: Final = np.float32(0.5)

# Positions that are multiplied at a time: few seconds' work with any matrix.
_POSITIONS: Final = 2048

Write = Callable[[str, Callable[[], Quantizer]], None]
"""Quantises the matrices that read one input, by the name of the first; its quantiser is only made if need be."""


class Passing(Observer):
    """Tells what effort the products take that texts pass through."""

    positions = np.iinfo(np.int64).max  # each matrix is read when its product is made, and not kept

    def __init__(self, spent: Spent) -> None:
        """`spent` is told of each part of a product."""
        self._spent = spent

    def product(self, model: Tensors, name: str) -> Callable[[Float32], Float32]:
        """Multiply by a matrix, some positions at a time."""
        return partial(self._multiplied, [model], name)

    def _multiplied(self, models: Sequence[Tensors], name: str, x: Float32) -> Float32:
        """Return the products of equal shares of x with a matrix of a model each."""
        out = np.empty((0, 0), np.float32)
        share = len(x) // len(models)
        for number, model in enumerate(models):
            weight = model.tensor(name)
            if number == 0:
                out = np.empty((len(x), len(weight)), np.float32)
            given, made = (each[number * share : (number + 1) * share] for each in (x, out))
            for start in range(0, len(given), _POSITIONS):
                some = slice(start, start + _POSITIONS)
                np.matmul(given[some], weight.T, out=made[some])
                self._spent(of_passing(len(given[some]), *weight.shape))
            del weight  # before the next one is read
        return out


class Sequential(Passing):
    """Both halves of the positions on their way through the layers, all at once: parts have other halves."""

    def __init__(self, quantised: Tensors, write: Write, spent: Spent = untold, kept: Passed | None = None) -> None:
        """`quantised` is the model whose matrices `write` has written so far; `kept` is what a killed export left."""
        super().__init__(spent)
        self._quantised, self._write, self._kept = quantised, write, kept

    def start(self, model: Tensors, ids: Int64) -> tuple[int, Float32]:
        """Begin where a killed export has come to."""
        return (self._kept and self._kept.found()) or super().start(model, ids)

    def passed(self, layers: int, hidden: Float32) -> None:
        """Keep it for an export that may be killed."""
        if self._kept:
            self._kept.keep(layers, hidden)

    def inputs(self, name: str, x: Float32, residual: Float32 | None = None) -> None:
        """Write the matrices that read x."""
        if name == "embedding":  # tied to the head, it was written when the first text was read
            return
        exact, found = _halves(x)
        lead = None if residual is None else np.subtract(*_halves(residual))
        self._write(name, lambda: Mended(found, exact, lead, self._spent))

    def routes(self, layer: int, chosen: Int64) -> Int64:  # noqa: ARG002
        """Send a position to the same experts in both halves, so that what meets an expert is a pair."""
        exact, _ = _halves(chosen)
        return np.concatenate((exact, exact))

    def embed(self, model: Tensors, ids: Int64) -> Float32:
        """Read rows of the checkpoint's embedding and of what became of it."""
        exact, found = _halves(ids)
        return np.concatenate((super().embed(model, exact), super().embed(self._quantised, found)))

    def product(self, model: Tensors, name: str) -> Callable[[Float32], Float32]:
        """Multiply by the checkpoint's matrix and by what became of it."""
        return partial(self._multiplied, [model, self._quantised], name)


class Mended:
    """Rounds matrices that read one input, by coordinate descent."""

    def __init__(
        self,
        found: Float32,
        exact: Float32 | None = None,
        lead: Float32 | None = None,
        spent: Spent = untold,
    ) -> None:
        """`found` [n, in] is what they meet in the bundle, `exact` in the checkpoint, if that is something else.

        `lead` [n, out] is by how much the residual stream of the checkpoint is ahead of the bundle's.

        Raises:
            numpy.linalg.LinAlgError: What they meet is not finite.
        """
        self.products = products_of(found, spent)
        self._found, self._lead = found, lead
        self._ahead: Float32 | None = None if exact is None else exact - found
        self._turn: Float32 | None = None
        if self._ahead is not None and turns(*found.shape):
            # R^T x' H^-1 of all rows at once, but for the lead: W times this.
            pull: Float32 = _SHARE * (self._ahead.T @ found)
            self._turn = self.products.by_inverse(pull)
            self._ahead = None
            spent(of_turn(*found.shape))

    def __call__(self, weight: Float32, rows: slice, *, bits: int, block_size: int, zero_points: bool) -> Packed:
        """Return some rows of one of the matrices."""
        return compensated(self.aim(weight, rows), self.products, bits, block_size, zero_points=zero_points)

    def aim(self, weight: Float32, rows: slice) -> Float32:
        """Return the weights W + R^T x' H^-1 [n_rows, in] that would give what is asked for."""
        aim = weight if self._turn is None else weight + weight @ self._turn
        missing: list[Float32] = []
        if self._ahead is not None:
            products: Float32 = self._ahead @ weight.T
            missing.append(products)
        if self._lead is not None:
            missing.append(self._lead[:, rows])
        if missing:
            pull: Float32 = _SHARE * (sum(missing[1:], missing[0]).T @ self._found)
            aim = aim + self.products.by_inverse(pull)
        return aim


def _halves(x: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return what belongs to the checkpoint and what belongs to the bundle."""
    middle = len(x) // 2
    return x[:middle], x[middle:]
