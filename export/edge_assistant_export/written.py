"""What lies in a file of weights, read back: the model as a board will compute with it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_assistant_export.checkpoint import Checkpoint, ModelConfig
from edge_assistant_export.graph import Place
from edge_assistant_export.quantize import Float32, Packed, dequantize
from edge_assistant_export.reference import Tensors
from edge_assistant_export.weights import Matrix, Weights


class Written(Tensors):
    """A model whose rounded matrices are those of a file; what has not been written yet is nothing in particular."""

    def __init__(self, file: int, weights: Weights, checkpoint: Checkpoint) -> None:
        """`file` is the descriptor of an open file."""
        self._file, self._checkpoint = file, checkpoint
        self._rows: dict[str, tuple[Matrix, slice]] = {}
        for matrix in weights.matrices:
            first = 0
            for part in matrix.parts:
                for turn, name in enumerate(part.names):
                    self._rows[name] = matrix, slice(first + turn, first + part.n_rows, len(part.names))
                first += part.n_rows

    @property
    def config(self) -> ModelConfig:
        """The architecture."""
        return self._checkpoint.config

    def tensor(self, name: str, rows: slice | None = None) -> Float32:
        """Return a tensor, or some rows of it, as its integers and scales have it; others are the checkpoint's."""
        if name not in self._rows or self._rows[name][0].scales is None:
            return self._checkpoint.tensor(name, rows)
        matrix, every = self._rows[name]
        chosen = range(every.start, every.stop, every.step)[rows or slice(None)]
        first, last = chosen[0], chosen[-1] + 1
        data, scales, *zeros = (self._read(place, first, last) for place in matrix.places)
        packed = Packed(data, scales, *zeros)
        return dequantize(packed, matrix.bits, matrix.row_size)[:: every.step]

    def _read(self, place: Place, first: int, last: int) -> npt.NDArray[Any]:
        row_bytes = place.nbytes // place.shape[0]
        stored = os.pread(self._file, (last - first) * row_bytes, place.offset + first * row_bytes)
        return np.frombuffer(stored, place.dtype).reshape(last - first, *place.shape[1:])
