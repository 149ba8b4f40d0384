"""Scales of an int8 cache: what one step of each channel of a layer's keys and values is worth.

GroupQueryAttention rounds x / scale to -128..127 with scales that are fixed beforehand, one for each channel of each
key/value head. Here they are a channel's largest magnitude over texts and a tenth more, divided by 127.

Keys are kept rotated, and a rotation moves magnitude between the two channels of a pair: so a key counts with the
largest magnitude it has at any position the model can hold, not only at the one where the text had it. A text of some
dozens of tokens then also speaks for late positions. Only the maxima are kept, so memory does not grow with the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_assistant.bundle import frequencies
from edge_assistant_export.mistral import CacheScales
from edge_assistant_export.reference import Observer, Tensors, hidden_states, rotate
from edge_assistant_export.rotary import attention_factor

if TYPE_CHECKING:
    from edge_assistant_export.checkpoint import ModelConfig
    from edge_assistant_export.safetensors_file import Float32

_STEPS: Final = 127
# Other texts go a little farther than the one that was seen, and what is cut off costs more than a coarser step.
_HEADROOM: Final = np.float32(1.1)
# Angles at which a pair is looked at, from where it starts to the farthest it is ever turned: 1.5 % short at worst.
_TURNS: Final = 10


def cache_scales(model: Tensors, texts: Sequence[Sequence[int]]) -> CacheScales:
    """Return the scales that texts of ids give, for which the model is read once."""
    maxima = _Maxima(model.config)
    hidden_states(model, texts, observer=maxima)
    return maxima.scales()


class _Maxima(Observer):
    """The largest magnitude of every channel so far."""

    def __init__(self, config: ModelConfig) -> None:
        """Begin with zeros."""
        shape = (config.n_layers, config.n_kv_heads, config.head_dim)
        self._keys, self._values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._angles, self._stretch = _angles(config), np.float32(attention_factor(config))

    def keys_and_values(self, layer: int, keys: Float32, values: Float32) -> None:
        """Take in keys before rotation and values, [n, n_kv_heads, head_dim] each."""
        for angles in self._angles:
            _raise_to(self._keys[layer], rotate(keys, angles[np.newaxis]) * self._stretch)
        _raise_to(self._values[layer], values)

    def scales(self) -> CacheScales:
        """Return what a step is worth, float32 [n_layers, n_kv_heads, head_dim] each.

        A channel that was always zero has the scale of the smallest normal number.
        """
        keys, values = (
            np.maximum(maxima * (_HEADROOM / _STEPS), np.finfo(np.float32).tiny)
            for maxima in (self._keys, self._values)
        )
        return CacheScales(keys, values)


def _raise_to(maxima: Float32, numbers: Float32) -> None:
    np.maximum(maxima, np.abs(numbers).max(axis=0), out=maxima)


def _angles(config: ModelConfig) -> Sequence[Float32]:
    """Return sets of angles [head_dim/2]: each pair spread over its way to the last position, half a turn at most."""
    farthest = np.minimum(frequencies(config) * (config.max_positions - 1), np.pi)
    return list(np.linspace(0, farthest, _TURNS).astype(np.float32))
