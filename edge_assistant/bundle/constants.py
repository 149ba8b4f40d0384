"""Small constants that lie in a graph itself: onnxruntime computes with them, but does not hand them out.

Of ONNX's messages (onnx.proto) four fields lead to a float32 tensor's numbers:

    ModelProto.graph = 7    GraphProto.initializer = 5    TensorProto.name = 8    TensorProto.raw_data = 9
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_assistant.bundle.protobuf import inside
from edge_assistant.errors import BundleGraphError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

_GRAPH, _INITIALIZER, _NAME, _RAW_DATA = 7, 5, 8, 9


def read_constants(graph: Path, names: Iterable[str]) -> dict[str, NDArray[np.float32]]:
    """Return the numbers of float32 constants [n] by name.

    Raises:
        BundleGraphError: The file is no graph, or lacks one of them.
    """
    try:
        found = _constants(graph.read_bytes(), set(names))
    except (IndexError, KeyError, ValueError) as error:
        raise BundleGraphError(graph, [f"no ONNX model: {error}"]) from error
    if missing := sorted(set(names) - found.keys()):
        raise BundleGraphError(graph, [f"the constant {name} is missing" for name in missing])
    return found


def _constants(model: bytes, names: set[str]) -> dict[str, NDArray[np.float32]]:
    found: dict[str, NDArray[np.float32]] = {}
    for tensor in inside(model, _GRAPH, _INITIALIZER):
        name = b"".join(inside(tensor, _NAME)).decode()
        if name in names:
            found[name] = np.frombuffer(b"".join(inside(tensor, _RAW_DATA)), "<f4")
    return found
