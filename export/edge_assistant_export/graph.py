"""A thin, typed writer of ONNX graphs over onnx_ir: one method call a node, and places in the file of weights.

Contract: big weights are not in the graph but in one file beside it, at places that are known before a byte of them is
(`DataFile`), so that a graph can be built first and its weights streamed to disk afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

MICROSOFT: Final = "com.microsoft"
_OPSETS: Final = {"": 21, MICROSOFT: 1}
_IR_VERSION: Final = 10
# A page: every tensor can be mapped from where it lies.
_ALIGNMENT: Final = 4096

Shape = Sequence[int | str]
Attribute = int | float | str | Sequence[int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies in the file of weights."""

    name: str
    dtype: npt.DTypeLike
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes from `offset` on."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class DataFile:
    """The plan of a file of weights: tensors one after the other, each at the start of a page."""

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name
        self.size = 0

    def place(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Place:
        """Take the next free place."""
        place = Place(name, dtype, shape, -(-self.size // _ALIGNMENT) * _ALIGNMENT)
        self.size = place.offset + place.nbytes
        return place


class GraphWriter:
    """Collects inputs, constants, nodes and outputs; `model` returns them as a whole."""

    def __init__(self, name: str, data: DataFile) -> None:
        self._data = data
        self._graph = ir.Graph([], [], nodes=[], opset_imports=_OPSETS, name=name)

    def input(self, name: str, dtype: ir.DataType, shape: Shape, default: npt.NDArray[Any] | None = None) -> ir.Value:
        """Add an input of the model; one with a default may be left out by the caller."""
        value = ir.val(name, dtype, shape)
        if default is not None:
            value.const_value = ir.tensor(default, name=name)
            self._graph.register_initializer(value)
        self._graph.inputs.append(value)
        return value

    def constant(self, name: str, array: npt.NDArray[Any]) -> ir.Value:
        """Add a small constant, kept in the graph itself; the same name gives the same constant again."""
        if name in self._graph.initializers:
            return self._graph.initializers[name]
        return self._initializer(ir.Tensor(array, name=name))

    def weight(self, place: Place, shape: tuple[int, ...] | None = None, suffix: str = "") -> ir.Value:
        """Add a tensor of the file of weights; a second view of one place needs a `suffix` to its name."""
        name = place.name + suffix
        if name in self._graph.initializers:
            return self._graph.initializers[name]
        return self._initializer(
            ir.ExternalTensor(
                self._data.file_name,
                place.offset,
                place.nbytes,
                ir.DataType.from_numpy(np.dtype(place.dtype)),
                shape=ir.Shape(shape or place.shape),
                name=name,
            )
        )

    def node(
        self, op_type: str, inputs: Sequence[ir.Value | None], name: str, *, domain: str = "", **attributes: Attribute
    ) -> ir.Value:
        """Add a node of one output."""
        return self.nodes(op_type, inputs, (name,), domain=domain, **attributes)[0]

    def nodes(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        names: Sequence[str],
        *,
        domain: str = "",
        **attributes: Attribute,
    ) -> Sequence[ir.Value]:
        """Add a node of several outputs, named in order; an empty name leaves an optional output out."""
        outputs = [ir.Value(name=name) for name in names]
        self._graph.append(ir.node(op_type, inputs, attributes, domain=domain, outputs=outputs, name=names[0]))
        return outputs

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Shape) -> None:
        """Make a value an output of the model, under this name."""
        value.name = name
        value.type = ir.TensorType(dtype)
        value.shape = ir.Shape(shape)
        self._graph.outputs.append(value)

    def model(self, producer: str, version: str, metadata: Mapping[str, str]) -> ir.Model:
        """Return the whole."""
        return ir.Model(
            self._graph,
            ir_version=_IR_VERSION,
            producer_name=producer,
            producer_version=version,
            metadata_props=dict(metadata),
        )

    def _initializer(self, tensor: ir.Tensor[npt.NDArray[Any]] | ir.ExternalTensor) -> ir.Value:
        value = ir.Value(name=tensor.name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._graph.register_initializer(value)
        return value


def serialize(model: ir.Model) -> bytes:
    """Return the bytes of the .onnx file; weights that have a place in the file of weights are only referred to."""
    content: bytes = ir.serde.serialize_model(model).SerializeToString()
    return content
