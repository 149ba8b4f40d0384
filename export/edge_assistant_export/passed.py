"""How far the calibration texts of GPTQ have come, so that what was killed begins at the layer where it was.

    a line of JSON      how many layers they have passed, which matrices were left, the shape and hash of the rest
    float32             the residual stream behind those layers [n, hidden], of the checkpoint and of the bundle

It only saves time: where the disk has no room for it, or lacks anything of what was written before, texts begin anew.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_assistant_export.calibration_text import most_positions
from edge_assistant_export.publish import replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from edge_assistant_export.checkpoint import ModelConfig
    from edge_assistant_export.methods import Target
    from edge_assistant_export.quantize import Float32

_HALVES: Final = 2
_FILES: Final = 2


class Passed:
    """What is kept in a file of the last layer that is finished."""

    def __init__(self, path: Path, target: Target) -> None:
        """`target` is where the layers are written to."""
        self._path, self._target = path, target

    def keep(self, layers: int, hidden: Float32) -> None:
        """Keep what has passed so many layers, [n, hidden], in place of what was kept before."""
        data = hidden.reshape(-1).view(np.uint8).data
        sha256 = hashlib.sha256(data).hexdigest()
        about = {"layers": layers, "left": list(self._target.left), "shape": hidden.shape, "sha256": sha256}
        with suppress(OSError):
            replace_file(self._path, json.dumps(about).encode() + b"\n", data)

    def found(self) -> tuple[int, Float32] | None:
        """Return what is kept, whose layers are then not written again; None where they have to be."""
        if not self._path.is_file():
            return None
        with self._path.open("rb") as file:
            about = json.loads(file.readline())
            hidden = np.fromfile(file, np.float32)
        if hashlib.sha256(hidden.view(np.uint8).data).hexdigest() != about["sha256"]:
            return None
        if not self._target.skip([name for name in self._target.left if name not in about["left"]]):
            return None
        return about["layers"], hidden.reshape(about["shape"])


def bytes_at_most(config: ModelConfig) -> int:
    """Return the bytes of the disk that are taken while one file takes another's place."""
    return _FILES * _HALVES * most_positions(config) * config.hidden_size * np.dtype(np.float32).itemsize
