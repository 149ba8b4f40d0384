"""The graph writer: what it places in the file of weights is what onnxruntime reads there."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant_export.graph import DataFile, GraphWriter, serialize


@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3), min_size=1, max_size=20))
def test_places_lie_apart_and_begin_at_pages(shapes):
    file = DataFile("weights")
    places = [file.place(str(number), np.uint8, tuple(shape)) for number, shape in enumerate(shapes)]
    ends = [0, *(place.offset + place.nbytes for place in places)]
    assert all(place.offset >= end for place, end in zip(places, ends, strict=False))
    assert not any(place.offset % 4096 for place in places)
    assert file.size == ends[-1]


@pytest.fixture
def scaled_sum(tmp_path):
    """A session of `y = n * (x + weight)`, where n is 1 unless said otherwise, and the weight lies in a file."""
    data = DataFile("weights")
    data.place("unused", np.uint8, (5000,))
    place = data.place("weight", np.float32, (2, 3))
    graph = GraphWriter("test", data)
    x = graph.input("x", ir.DataType.FLOAT, ("rows", 3))
    n = graph.input("n", ir.DataType.FLOAT, (), default=np.array(1, np.float32))
    total = graph.node("Add", [x, graph.weight(place)], "sum")
    graph.output(graph.node("Mul", [total, n], "scaled"), "y", ir.DataType.FLOAT, ("rows", 3))
    (tmp_path / "model.onnx").write_bytes(serialize(graph.model("test", "1", {})))
    with (tmp_path / "weights").open("wb") as file:
        file.truncate(data.size)
        file.seek(place.offset)
        file.write(np.arange(6, dtype=np.float32).tobytes())
    return ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])


def test_weights_are_read_from_their_place(scaled_sum):
    (y,) = scaled_sum.run(["y"], {"x": np.ones((2, 3), np.float32)})
    np.testing.assert_array_equal(y, np.arange(6, dtype=np.float32).reshape(2, 3) + 1)


def test_an_input_with_a_default_can_be_left_out_or_given(scaled_sum):
    x = np.ones((2, 3), np.float32)
    (once,) = scaled_sum.run(["y"], {"x": x})
    (twice,) = scaled_sum.run(["y"], {"x": x, "n": np.array(2, np.float32)})
    np.testing.assert_array_equal(twice, 2 * once)


def test_a_constant_asked_for_twice_is_one():
    graph = GraphWriter("test", DataFile("weights"))
    assert graph.constant("one", np.array(1)) is graph.constant("one", np.array(1))
