"""Taking a span out of the middle of a context without reading what stands behind it again.

The rows behind the span move up, and their keys turn: a key is kept rotated by its position, pair j of its channels by
position * frequency_j, so to stand n positions earlier it turns back by n * frequency_j. That is exact, for attention
sees nothing but the difference of two positions. Values have no position. Here two positions leave a context of six:

    position   0   1   2   3   4   5             0   1   2   3
    keys       k0  k1  k2  k3  k4  k5    ->      k0  k1  k4' k5'      k' = k turned back by 2

What is not exact: the rows that stay were computed by layers that still saw the span, so they carry some of it; in a
model of one layer, nothing. A fresh prefill of the tokens that are left says what they would be without it.

An int8 key is an integer times what a step of its channel is worth (`scales`). It is turned as a number and rounded to
an integer again, which moves each channel by half a step at most, every time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from edge_assistant.bundle import frequencies, key_scale, read_constants
from edge_assistant.engine.memory import on_host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from edge_assistant.bundle import Architecture, Bundle
    from edge_assistant.engine.memory import Buffer

_BLOCK: Final = 128
"""Rows that are moved at a time, so that what is copied on the way stays small."""


def key_scales(bundle: Bundle) -> Sequence[NDArray[np.float32]]:
    """Return what a step of each layer's int8 keys is worth, [n_kv_heads, 1, head_dim] each; nothing for float keys.

    Raises:
        BundleGraphError: The graph does not say.
    """
    architecture = bundle.manifest.architecture
    if bundle.manifest.cache.type != "int8":
        return ()
    names = [key_scale(layer) for layer in range(architecture.n_layers)]
    constants = read_constants(bundle.graph_path, names)
    return [constants[name].reshape(architecture.n_kv_heads, 1, architecture.head_dim) for name in names]


class Evictor:
    """Moves rows of the layers of one cache."""

    def __init__(
        self,
        architecture: Architecture,
        layers: Sequence[tuple[Buffer, Buffer]],
        scales: Sequence[NDArray[np.float32]],
    ) -> None:
        """`layers` are keys and values [1, n_kv_heads, rows, head_dim]; int8 keys need `key_scales`."""
        self._layers, self._scales = layers, scales
        self._frequencies = frequencies(architecture)

    def remove(self, start: int, end: int, length: int) -> None:
        """Move rows [end, length) of every layer to `start`, and turn their keys back by as many positions."""
        back = end - start
        angles = self._frequencies * back
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        for layer, (key_buffer, value_buffer) in enumerate(self._layers):
            with on_host(key_buffer) as keys, on_host(value_buffer) as values:
                for row in range(end, length, _BLOCK):
                    old = slice(row, min(row + _BLOCK, length))
                    new = slice(old.start - back, old.stop - back)
                    values[:, :, new] = values[:, :, old]
                    if keys.dtype == np.int8:
                        scales = self._scales[layer]
                        turned = _turned_back(keys[:, :, old] * scales, cos, sin)
                        keys[:, :, new] = np.clip(np.rint(turned / scales), -128, 127)
                    else:
                        keys[:, :, new] = _turned_back(keys[:, :, old], cos, sin)


def _turned_back(keys: NDArray[np.float32], cos: NDArray[np.float32], sin: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return keys [..., head_dim] whose pairs (j, j + head_dim / 2) are turned back by angles, as cos and sin give."""
    first, second = np.split(keys, 2, axis=-1)
    return np.concatenate((first * cos + second * sin, second * cos - first * sin), axis=-1)
