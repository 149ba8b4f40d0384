"""ONNX models of one operator, written without onnx, which a board does not have.

A message of protocol buffers is a row of fields: a number with the kind of what follows, then a varint (kind 0), four
bytes (kind 5), or a length and as many bytes (kind 2). Every number below is that of the field in onnx.proto.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

Attribute = int | float | str

MICROSOFT: Final = "com.microsoft"
_IR_VERSION: Final = 10
_OPSETS: Final = {"": 21, MICROSOFT: 1}
_ELEMENT_TYPES: Final = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float16": 10}
_FLOAT, _INT, _STRING = 1, 2, 3
"""Of an attribute."""


class Value(NamedTuple):
    """An input or an output: its name and its type; a size of None may be any."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Constant(NamedTuple):
    """An input that the model holds itself."""

    name: str
    array: NDArray[Any]


def one_operator(
    op_type: str,
    inputs: Sequence[Value | Constant | None],
    outputs: Sequence[Value],
    attributes: Mapping[str, Attribute],
) -> bytes:
    """Return a model that is one of onnxruntime's own operators; None stands for an input that is left out."""
    constants = {one.name: one for one in inputs if isinstance(one, Constant)}
    values = {one.name: one for one in inputs if isinstance(one, Value)}
    node = [
        *(_field(1, one.name if one else "") for one in inputs),
        *(_field(2, one.name) for one in outputs),
        _field(4, op_type),
        *(_field(5, _attribute(name, value)) for name, value in attributes.items()),
        _field(7, MICROSOFT),
    ]
    graph = [
        _field(1, b"".join(node)),
        _field(2, op_type),
        *(_field(5, _tensor(one)) for one in constants.values()),
        *(_field(11, _value(one)) for one in values.values()),
        *(_field(12, _value(one)) for one in outputs),
    ]
    opsets = [_field(8, _field(1, domain) + _field(2, version)) for domain, version in _OPSETS.items()]
    return b"".join([_field(1, _IR_VERSION), _field(7, b"".join(graph)), *opsets])


def _value(value: Value) -> bytes:
    sizes = b"".join(_field(1, b"" if size is None else _field(1, size)) for size in value.shape)
    tensor = _field(1, _ELEMENT_TYPES[value.dtype]) + _field(2, sizes)
    return _field(1, value.name) + _field(2, _field(1, tensor))


def _tensor(constant: Constant) -> bytes:
    array = constant.array
    sizes = b"".join(_field(1, size) for size in array.shape)
    element = _field(2, _ELEMENT_TYPES[array.dtype.name])
    return sizes + element + _field(8, constant.name) + _field(9, array.tobytes())


def _attribute(name: str, value: Attribute) -> bytes:
    number, kind = {float: (2, _FLOAT), int: (3, _INT), str: (4, _STRING)}[type(value)]
    return _field(1, name) + _field(number, value) + _field(20, kind)


def _field(number: int, value: float | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last byte have their highest bit set."""
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*content, value])
