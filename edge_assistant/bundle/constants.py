"""Small constants that lie in a graph itself: onnxruntime computes with them, but does not hand them out.

The board has no onnx package, and needs none for this: a message of Protocol Buffers is a row of fields, each a key
(number << 3 | wire type) and a value, and those that hold others give their length first. Of ONNX's messages
(onnx.proto) four fields lead to a float32 tensor's numbers:

    ModelProto.graph = 7    GraphProto.initializer = 5    TensorProto.name = 8    TensorProto.raw_data = 9
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from edge_assistant.errors import BundleGraphError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_GRAPH, _INITIALIZER, _NAME, _RAW_DATA = 7, 5, 8, 9
_VARINT, _LENGTH = 0, 2
_FIXED: Final = {1: 8, 5: 4}
"""Bytes of the wire types that have a fixed size."""


def read_constants(graph: Path, names: Iterable[str]) -> dict[str, NDArray[np.float32]]:
    """Return the numbers of float32 constants [n] by name.

    Raises:
        BundleGraphError: The file is no graph, or lacks one of them.
    """
    try:
        found = _constants(memoryview(graph.read_bytes()), set(names))
    except (IndexError, KeyError, ValueError) as error:
        raise BundleGraphError(graph, [f"no ONNX model: {error}"]) from error
    if missing := sorted(set(names) - found.keys()):
        raise BundleGraphError(graph, [f"the constant {name} is missing" for name in missing])
    return found


def _constants(model: memoryview, names: set[str]) -> dict[str, NDArray[np.float32]]:
    found: dict[str, NDArray[np.float32]] = {}
    for graph in _values(model, _GRAPH):
        for tensor in _values(graph, _INITIALIZER):
            name = b"".join(_values(tensor, _NAME)).decode()
            if name in names:
                found[name] = np.frombuffer(b"".join(_values(tensor, _RAW_DATA)), "<f4")
    return found


def _values(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Give the bytes of every field of a number in a message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
            continue
        length, at = _varint(message, at) if kind == _LENGTH else (_FIXED[kind], at)
        if number == wanted:
            yield message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
