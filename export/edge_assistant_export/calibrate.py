"""Scales of an int8 cache: what one step of each channel of a layer's keys and values is worth.

GroupQueryAttention rounds x / scale to -128..127 with scales that are fixed beforehand, one for each channel of each
key/value head. Here they are a channel's largest magnitude over a text and a tenth more, divided by 127.

Keys are kept rotated, and a rotation moves magnitude between the two channels of a pair: so a key counts with the
largest magnitude it has at any position the model can hold, not only at the one where the text had it. A text of some
dozens of tokens then also speaks for late positions. Only the maxima are kept, so memory does not grow with the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from edge_assistant.errors import CheckpointError
from edge_assistant_export.checkpoint import Checkpoint, ModelConfig
from edge_assistant_export.mistral import CacheScales
from edge_assistant_export.reference import hidden_states, rotate
from edge_assistant_export.safetensors_file import Float32
from edge_assistant_export.sample import Progress, sample

# A model is read once for each token it samples, whatever the number of texts, and once for all of a file.
_SAMPLED_TEXTS: Final = 64
_SAMPLED_TOKENS: Final = 32
_FILE_TOKENS: Final = 4096
_FILE_TEXT_TOKENS: Final = 512
_FILE_CHARACTERS: Final = 64 * _FILE_TOKENS

_STEPS: Final = 127
# Other texts go a little farther than the one that was seen, and what is cut off costs more than a coarser step.
_HEADROOM: Final = np.float32(1.1)
# Angles at which a pair is looked at, from where it starts to the farthest it is ever turned: 1.5 % short at worst.
_TURNS: Final = 10


def calibrate(checkpoint: Checkpoint, text: Path | None = None, progress: Progress | None = None) -> CacheScales:
    """Return the scales, float32 [n_layers, n_kv_heads, head_dim] each, from a file or from what the model samples.

    Of the file, the first 4,096 tokens are read, in texts of 512; the model samples 64 texts of 32, for which it
    is read 31 times.

    Raises:
        CheckpointError: The file cannot be read as text, or is empty.
    """
    maxima = Maxima(checkpoint.config)
    if text is None:
        sample(checkpoint, _SAMPLED_TEXTS, _SAMPLED_TOKENS, observe=maxima.observe, progress=progress)
    else:
        _observe_file(checkpoint, read_texts(checkpoint, text), maxima, progress)
    return maxima.scales()


def _observe_file(checkpoint: Checkpoint, texts: list[list[int]], maxima: Maxima, progress: Progress | None) -> None:
    def observe(layer: int, keys: Float32, values: Float32) -> None:
        maxima.observe(layer, keys, values)
        if progress is not None:
            progress(layer + 1, checkpoint.config.n_layers)

    hidden_states(checkpoint, texts, observe=observe)


def read_texts(checkpoint: Checkpoint, path: Path) -> list[list[int]]:
    """Return the beginning of a file as texts of the model's ids, `<s>` first in each.

    Raises:
        CheckpointError: The file cannot be read as text, or is empty.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_FILE_CHARACTERS)
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(path, f"it cannot be read as UTF-8 text ({error})") from error
    tokenizer = Tokenizer.from_buffer(checkpoint.tokenizer_json())
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode(text, add_special_tokens=False).ids[:_FILE_TOKENS]
    if not ids:
        raise CheckpointError(path, "it is empty: there is nothing to calibrate with")
    begin = checkpoint.special_ids().get("<s>", 1)
    step = min(_FILE_TEXT_TOKENS, checkpoint.config.max_positions) - 1
    return [[begin, *ids[start : start + step]] for start in range(0, len(ids), step)]


class Maxima:
    """The largest magnitude of every channel so far."""

    def __init__(self, config: ModelConfig) -> None:
        """Begin with zeros."""
        shape = (config.n_layers, config.n_kv_heads, config.head_dim)
        self._keys, self._values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._angles = _angles(config)

    def observe(self, layer: int, keys: Float32, values: Float32) -> None:
        """Take in keys before rotation and values, [n, n_kv_heads, head_dim] each."""
        for angles in self._angles:
            _raise_to(self._keys[layer], rotate(keys, angles[np.newaxis]))
        _raise_to(self._values[layer], values)

    def scales(self) -> CacheScales:
        """Return what a step is worth; a channel that was always zero has the scale of the smallest normal number."""
        keys, values = (
            np.maximum(maxima * (_HEADROOM / _STEPS), np.finfo(np.float32).tiny)
            for maxima in (self._keys, self._values)
        )
        return CacheScales(keys, values)


def _raise_to(maxima: Float32, numbers: Float32) -> None:
    np.maximum(maxima, np.abs(numbers).max(axis=0), out=maxima)


def _angles(config: ModelConfig) -> Sequence[Float32]:
    """Return sets of angles [head_dim/2]: each pair spread over its way to the last position, half a turn at most."""
    frequencies = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    farthest = np.minimum(frequencies * (config.max_positions - 1), np.pi)
    return list(np.linspace(0, farthest, _TURNS).astype(np.float32))
