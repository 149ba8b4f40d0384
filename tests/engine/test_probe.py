"""A provider is trusted once it has computed what a bundle is made of: the probes are that, and find mistakes out."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edge_assistant.engine import probe as probe_module
from edge_assistant.engine.probe import agree, probe
from edge_assistant.engine.probe_graphs import Probe, probes
from edge_assistant.engine.providers import CPU

AZURE = "AzureExecutionProvider"
"""A provider that every wheel names, and that computes nothing: a real one that is there and does not work."""
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}
RECIPES = {
    "floats": ({}, {"bits": 32}),
    "float16": ({}, {"bits": 16, "dtype": "float16"}),
    "int4": ({}, {"bits": 4}),
    "int4 in float16": ({}, {"bits": 4, "dtype": "float16"}),
    "zero points": ({}, {"bits": 4, "block_size": 64, "zero_points": True}),
    "two kinds": ({}, {"bits": 4, "eight_bits": ("lm_head", "layers.0.qkv"), "block_size": 64}),
    "int8 cache": ({}, {"bits": 4, "cache": "int8", "dtype": "float16"}),
    "heads rotated in the graph": ({"head_dim": 24}, {"bits": 4}),
    "window": ({"sliding_window": 8}, {"bits": 4, "window_cache": "full"}),
    "mixture": (MIXTURE, {"bits": 4}),
    "mixture with zero points": (MIXTURE, {"bits": 4, "zero_points": True}),
    "mixture in float16": (MIXTURE, {"bits": 4, "dtype": "float16", "eight_bits": ("layers.0.experts",)}),
    "mixture of floats": (MIXTURE, {"bits": 32}),
    "mixture of floats in float16": (MIXTURE, {"bits": 16, "dtype": "float16"}),
}
_OF_SIZES = {"num_heads", "kv_num_heads", "scale", "N", "K", "local_window_size", "k"}


@pytest.fixture(params=RECIPES.values(), ids=RECIPES)
def bundle(request, tiny_bundle, tmp_path_factory):
    shape, recipe = request.param
    if "cache" in recipe:
        text = tmp_path_factory.getbasetemp() / "calibration.txt"
        text.write_text("The lamp in the hall is on.")
        recipe = recipe | {"calibration": text}
    return tiny_bundle(shape, **recipe)


def kind(node: ir.Node) -> tuple:
    """What decides which kernel computes a node: its inputs that are there, their types, all that is said but sizes."""
    said = {name: one.value for name, one in node.attributes.items() if name not in _OF_SIZES | {"accuracy_level"}}
    inputs = [value is not None and value.name != "" for value in node.inputs]
    while not inputs[-1]:
        inputs.pop()
    return (node.op_type, node.domain, tuple(inputs), tuple(sorted(said.items())))


def read(graph: bytes) -> ir.Model:
    return ir.from_proto(ir.serde.onnx.ModelProto.FromString(graph))


def test_the_probes_are_what_a_bundle_is_made_of(bundle):
    graph = ir.load(bundle.graph_path).graph
    wanted = {kind(node) for node in graph if node.op_type in ("GroupQueryAttention", "MatMulNBits", "QMoE", "MoE")}
    probed = [kind(node) for one in probes(bundle.manifest) for node in read(one.graph).graph]
    assert set(probed) == wanted
    assert len(probed) == len(wanted)


def test_they_are_whole_models(bundle):
    for one in probes(bundle.manifest):
        onnx.checker.check_model(ir.to_proto(model := read(one.graph)))
        assert [value.name for value in model.graph.inputs] == list(one.feeds[0])


def test_the_processor_is_right(bundle):
    for one in probes(bundle.manifest):
        results = probe_module._compute(one, [(CPU, {})])
        assert agree(results, results)
        for result in results:
            assert result.std() > np.abs(result).max() / 10, "nothing that a mistake could be seen in"


def test_who_computes_nothing_is_found_out(bundle):
    problem = probe([(AZURE, {})], bundle.manifest)
    assert problem.startswith(f"attention in {bundle.manifest.quantization.dtype} over a cache of")
    assert "does not run there" in problem
    assert "fallback to CPU EP has been explicitly disabled" in problem


def with_a_mistake(one: Probe) -> Probe:
    """Return an operator that reads its weights in another order, or of attention one that weighs otherwise."""
    model = read(one.graph)
    (node,) = model.graph
    if node.op_type == "GroupQueryAttention":
        node.attributes["scale"] = ir.AttrFloat32("scale", 4 * node.attributes["scale"].value)
    else:
        weights = max((value.const_value for value in model.graph.initializers.values()), key=lambda one: one.nbytes)
        model.graph.initializers[weights.name].const_value = ir.tensor(
            np.roll(weights.numpy(), 1, axis=-1), name=weights.name
        )
    return one._replace(graph=ir.to_proto(model).SerializeToString())


def test_who_computes_wrongly_is_found_out(bundle, monkeypatch):
    """One operator after the other is wrong, and all others are right."""
    compute, all_of_them = probe_module._compute, list(probes(bundle.manifest))
    for wrong in all_of_them:

        def some_provider(one, providers, wrong=wrong):
            mistaken = one.what == wrong.what and providers == ["another"]
            return compute(with_a_mistake(one) if mistaken else one, [(CPU, {})])

        monkeypatch.setattr(probe_module, "_compute", some_provider)
        assert probe(["another"], bundle.manifest) == f"{wrong.what} is computed wrongly there"
        assert probe(["the same"], bundle.manifest) is None


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e4])
def test_what_is_no_number_is_wrong(number):
    right = [np.array([1.0, 2.0], np.float16)]
    assert not agree([np.array([1.0, number], np.float16)], right)
    assert agree(right, right)
