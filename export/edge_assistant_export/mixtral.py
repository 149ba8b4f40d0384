"""The feed-forward layers of Mixtral (arXiv 2401.04088) as ONNX nodes: a router, and one fused op for all experts.

    chosen, weight = top k of router(x), softmax over those k
    y = sum over the chosen e of weight[e] * down_e(silu(gate_e x) * up_e x)

onnxruntime's QMoE takes the router's logits and does the rest; on CPU it knows only the form whose gate and up rows
take turns (see `weights.py`). Its softmax over the k largest logits is Mixtral's softmax over all of them, cut to k and
normalised again. Unquantised experts go to MoE, which takes the same form. The router is a float32 product: it is
small, and a changed choice is a changed answer.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from edge_assistant.bundle import Architecture, Quantization
from edge_assistant_export.graph import MICROSOFT, Attribute, GraphWriter
from edge_assistant_export.weights import ExpertMatrices, Matrix

_SWIGLU: Final[dict[str, Attribute]] = {
    "activation_type": "swiglu",
    "swiglu_fusion": 1,
    # silu(gate) * up: the op computes gate * sigmoid(alpha * gate) * (up + beta).
    "activation_alpha": 1.0,
    "activation_beta": 0.0,
    "normalize_routing_weights": 1,
}

# CUDA's kernel, which there is for float16 alone, takes weights for packed in a way of its own unless it is told.
_RAW_WEIGHTS: Final[dict[str, Attribute]] = {"weights_prepacked": 0}


def mixture(
    graph: GraphWriter,
    architecture: Architecture,
    matrices: ExpertMatrices,
    quantization: Quantization,
    normed: ir.Value,
    at: str,
) -> ir.Value:
    """Add a mixture; `normed` and the result are [batch, seq, hidden]."""
    logits = _routes(graph, architecture, matrices.router, quantization, normed, at)
    fc1, fc2 = (_stacked(graph, matrix) for matrix in (matrices.fc1, matrices.fc2))
    attributes = {**_SWIGLU, "k": architecture.n_experts_per_token}
    if matrices.fc1.scales is None:
        inputs = [normed, logits, fc1[0], None, fc2[0]]
        return graph.node("MoE", inputs, f"{at}experts_out", domain=MICROSOFT, **attributes)
    return graph.node(
        "QMoE",
        [normed, logits, *fc1[:2], None, *fc2[:2], *_zero_points(fc1, fc2)],
        f"{at}experts_out",
        domain=MICROSOFT,
        expert_weight_bits=matrices.fc1.bits,
        block_size=matrices.fc1.block_size,
        accuracy_level=quantization.accuracy_level,
        **({} if quantization.dtype == "float32" else _RAW_WEIGHTS),
        **attributes,
    )


def _routes(
    graph: GraphWriter,
    architecture: Architecture,
    router: Matrix,
    quantization: Quantization,
    normed: ir.Value,
    at: str,
) -> ir.Value:
    """Return the router's logits [tokens, n_experts], a product in float32 whatever the graph computes in."""
    whole = quantization.dtype == "float32"
    if not whole:
        normed = graph.node("Cast", [normed], f"{at}router_in", to=ir.DataType.FLOAT.value)
    product = graph.node("FusedMatMul", [normed, graph.weight(router.data)], f"{at}router_out",
                         domain=MICROSOFT, transB=1)  # fmt: skip
    flat = graph.constant("shape_of_routes", np.array([-1, architecture.n_experts], np.int64))
    logits = graph.node("Reshape", [product, flat], f"{at}routes")
    if whole:
        return logits
    dtype = ir.DataType.from_numpy(np.dtype(quantization.dtype))
    return graph.node("Cast", [logits], f"{at}routes_{quantization.dtype}", to=dtype.value)


def _stacked(graph: GraphWriter, matrix: Matrix) -> list[ir.Value]:
    """Return a matrix of experts as the op takes it, [n_experts, out, ...]: weights, scales, zero points."""
    each = (matrix.n_experts, matrix.n_rows // matrix.n_experts)
    return [graph.weight(place, shape=(*each, int(np.prod(place.shape[1:])))) for place in matrix.places]


def _zero_points(fc1: list[ir.Value], fc2: list[ir.Value]) -> list[ir.Value | None]:
    """Return the inputs that follow on the scales: four of other forms of the op, then zero points if there are any."""
    zeros = [*fc1[2:], *fc2[2:]]
    return [None, None, None, None, *zeros] if zeros else []
