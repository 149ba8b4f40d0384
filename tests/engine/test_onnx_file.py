"""What is written without onnx is what onnx reads."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edge_assistant.engine.onnx_file import MICROSOFT, Constant, Value, one_operator

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300)
TYPES = st.sampled_from(["float32", "float16", "int8", "uint8", "int32", "int64"])
SHAPES = st.lists(st.none() | st.integers(0, 1 << 40), max_size=5).map(tuple)
NUMBERS = st.integers(0, (1 << 63) - 1) | st.floats(width=32, allow_nan=False) | NAMES
ARRAYS = st.builds(
    lambda dtype, shape, seed: np.random.default_rng(seed).integers(0, 100, shape).astype(dtype),
    TYPES,
    st.lists(st.integers(0, 20), max_size=3),
    st.integers(0, 99),
)


@given(
    st.lists(st.none() | st.builds(Value, NAMES, TYPES, SHAPES) | st.builds(Constant, NAMES, ARRAYS), max_size=6,
             unique_by=lambda one: one and one.name),
    st.lists(st.builds(Value, NAMES, TYPES, SHAPES), min_size=1, max_size=3, unique_by=lambda one: one.name),
    st.dictionaries(NAMES, NUMBERS, max_size=5),
)  # fmt: skip
def test_onnx_reads_what_was_said(inputs, outputs, attributes):
    model = onnx.ModelProto.FromString(one_operator("GroupQueryAttention", inputs, outputs, attributes))
    (node,) = model.graph.node
    assert (node.op_type, node.domain) == ("GroupQueryAttention", MICROSOFT)
    assert list(node.input) == [one.name if one else "" for one in inputs]
    assert list(node.output) == [one.name for one in outputs]
    said = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    assert said == {name: one.encode() if isinstance(one, str) else one for name, one in attributes.items()}
    for values, found in (([one for one in inputs if isinstance(one, Value)], model.graph.input),
                          (outputs, model.graph.output)):  # fmt: skip
        assert [(one.name, one.dtype, one.shape) for one in values] == [seen(value) for value in found]
    constants = [one for one in inputs if isinstance(one, Constant)]
    assert [one.name for one in constants] == [one.name for one in model.graph.initializer]
    for one, found in zip(constants, model.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(found), one.array, strict=True)


def seen(value: onnx.ValueInfoProto) -> tuple:
    tensor = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim)
    return value.name, helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape
