"""What onnxruntime raises for a graph that it cannot load or run: these have no base of their own."""

from __future__ import annotations

from typing import Final

from onnxruntime.capi.onnxruntime_pybind11_state import (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    RuntimeException,
)
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as OperatorNotImplemented

ORT_ERRORS: Final = (
    EPFail,
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    OperatorNotImplemented,
    RuntimeException,
)
