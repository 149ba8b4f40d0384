"""AWQ: channels that meet large inputs are made large before they are rounded (Lin et al. 2023, arXiv 2306.00978).

A matrix is multiplied column by column with s, and what gives its inputs is divided by s, which changes nothing but
what rounding costs: a column's error counts 1 / s. Where the division is exact and free:

    attention_norm -> q, k, v        ffn_norm -> gate, up; in a mixture the router and all experts
    rows of v      -> columns of o   rows of up -> columns of down, as silu(gate) * up is linear in up

Query heads that share a head of values share its scales. For every such pair s = mean|x|^a, a being that of a few
exponents with which the products of calibration inputs stay nearest to what they were; with a = 0 nothing is scaled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np

from edge_assistant_export.checkpoint import ModelConfig
from edge_assistant_export.publish import replace_file
from edge_assistant_export.quantize import Float32, dequantize, quantize
from edge_assistant_export.reference import Observer, Tensors, hidden_states

_EXPONENTS: Final = tuple(np.linspace(0, 1, 11).tolist())
# One of so many inputs is multiplied when exponents are compared; all are counted in mean|x|.
_STRIDE: Final = 16
# Weights of a matrix that are rounded at a time.
_PIECE: Final = 4 << 20


@dataclass(frozen=True)
class Blocks:
    """How the weights of a matrix will be rounded."""

    bits: int
    block_size: int
    zero_points: bool


class Scaled(Tensors):
    """A model whose channels are scaled: the same function, other weights."""

    def __init__(self, model: Tensors, factors: dict[str, Float32]) -> None:
        """`factors` are by a tensor's name and an axis: what its rows (`q 0`) and columns (`q 1`) are multiplied by."""
        self._model, self._factors = model, factors

    @property
    def config(self) -> ModelConfig:
        """The architecture."""
        return self._model.config

    def tensor(self, name: str, rows: slice | None = None) -> Float32:
        """Return a tensor, or some rows of it, scaled."""
        tensor = self._model.tensor(name, rows)
        if (of_rows := self._factors.get(f"{name} 0")) is not None:
            tensor *= of_rows[rows or slice(None)].reshape(-1, *[1] * (tensor.ndim - 1))
        if (of_columns := self._factors.get(f"{name} 1")) is not None:
            tensor *= of_columns
        return tensor


def scaled(model: Tensors, texts: Sequence[Sequence[int]], blocks: Mapping[str, Blocks], keep: Path) -> Scaled:
    """Return the model with the scales that texts of ids ask for, for which it is read once; `blocks` by tensor.

    They are kept at `keep`, an .npz, and read from there the next time.

    Raises:
        FloatingPointError: What passes through the layers is not finite.
    """
    if keep.is_file():
        with np.load(keep) as kept:
            return Scaled(model, dict(kept))
    search = _Search(model, blocks)
    hidden_states(model, texts, observer=search)
    search.finish()
    content = BytesIO()
    np.savez(content, allow_pickle=False, **search.factors)
    replace_file(keep, content.getvalue())
    return Scaled(model, search.factors)


class _Search(Observer):
    """Finds the scales of each pair when the inputs of its second part have been seen."""

    def __init__(self, model: Tensors, blocks: Mapping[str, Blocks]) -> None:
        self.factors: dict[str, Float32] = {}
        self._model, self._blocks = model, blocks
        self._name, self._count = "", 0
        self._sum: Float32 | None = None
        self._some: list[Float32] = []

    def inputs(self, name: str, x: Float32, residual: Float32 | None = None) -> None:  # noqa: ARG002
        """Take in x [n, in]; when a name is new, that of before is complete."""
        if name != self._name:
            self.finish()
            self._name = name
        magnitude = np.abs(x).sum(axis=0)
        self._sum = magnitude if self._sum is None else self._sum + magnitude
        self._count += len(x)
        self._some.append(x[::_STRIDE].copy())

    def finish(self) -> None:
        """Find the scales of the last one, where what gives its inputs can be divided."""
        total, count, some = self._sum, self._count, self._some
        self._sum, self._count, self._some = None, 0, []
        pair = _pair(self._model.config, self._name)
        if total is None or pair is None:
            return
        giver, takers, spread = pair
        if not np.isfinite(total).all():
            raise FloatingPointError("it is not finite")
        total /= np.float32(count)
        scales = self._best(spread(total), np.concatenate(some), takers)
        self.factors[f"{giver} 0"] = np.reciprocal(_unspread(self._model.config, self._name, scales))
        self.factors |= {f"{taker} 1": scales for taker in takers}

    def _best(self, magnitude: Float32, x: Float32, takers: Sequence[str]) -> Float32:
        """Return the scales [in] with which the products of x [n, in] with the takers change least."""
        candidates = [_scales(magnitude, exponent) for exponent in _EXPONENTS]
        costs = np.zeros(len(candidates))
        for weight, how in self._weights(takers):
            costs += [_cost(weight, how, scales, x) for scales in candidates]
        return candidates[int(np.where(np.isnan(costs), np.inf, costs).argmin())]

    def _weights(self, names: Iterable[str]) -> Iterator[tuple[Float32, Blocks]]:
        """Give matrices that are to be rounded, in pieces, and how; a router is not."""
        for name in names:
            if not name.endswith(".router"):
                weight = self._model.tensor(name)
                step = max(1, _PIECE // weight.shape[1])
                yield from ((weight[start : start + step], self._blocks[name]) for start in range(0, len(weight), step))


def _cost(weight: Float32, how: Blocks, scales: Float32, x: Float32) -> float:
    """Return by how much products of x [n, in] with a scaled weight [out, in] change when it is rounded."""
    packed = quantize(weight * scales, how.bits, how.block_size, zero_points=how.zero_points)
    found = dequantize(packed, how.bits, len(scales)) / scales
    found -= weight
    return float(np.square(x @ found.T).sum())


def _scales(magnitude: Float32, exponent: float) -> Float32:
    """Return magnitude^exponent, about 1; a channel that is always zero is left as it is."""
    met = magnitude > 0
    powers = magnitude[met] ** np.float32(exponent)
    scales = np.ones_like(magnitude)
    if powers.size:
        # Of the tiniest numbers the product is nothing.
        scales[met] = powers / (np.sqrt(powers.max() * powers.min()) or powers.max())
    return scales


def _pair(config: ModelConfig, name: str) -> tuple[str, list[str], Callable[[Float32], Float32]] | None:
    """Return what is divided, what is multiplied, and what makes magnitudes [in] those of channels that are scaled."""
    at, _, kind = name.rpartition(".")
    if kind == "q":
        return f"{at}.attention_norm", [f"{at}.{one}" for one in ("q", "k", "v")], _as_is
    if kind == "o":
        return f"{at}.v", [name], lambda magnitude: _share(config, magnitude)
    if kind == "router":
        experts = [f"{at}.experts.{e}.{one}" for e in range(config.n_experts) for one in ("gate", "up")]
        return f"{at}.ffn_norm", [name, *experts], _as_is
    if kind == "gate" and not config.n_experts:
        return f"{at}.ffn_norm", [name, f"{at}.up"], _as_is
    if kind == "down":
        return f"{at}.up", [name], _as_is
    return None


def _as_is(magnitude: Float32) -> Float32:
    return magnitude


def _share(config: ModelConfig, magnitude: Float32) -> Float32:
    """Return the mean magnitude of each channel of values, for every query head that reads it, [n_heads * head_dim]."""
    of_heads = magnitude.reshape(config.n_kv_heads, -1, config.head_dim)
    return np.broadcast_to(of_heads.mean(axis=1, keepdims=True), of_heads.shape).reshape(-1)


def _unspread(config: ModelConfig, name: str, scales: Float32) -> Float32:
    """Return the scales of what gives the inputs of a matrix: of values, one for each head of them."""
    if not name.endswith(".o"):
        return scales
    return scales.reshape(config.n_kv_heads, -1, config.head_dim)[:, 0].reshape(-1)
