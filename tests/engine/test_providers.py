"""Which provider computes; the list of those there are, and whether one works, stand in for machines with a GPU."""

from __future__ import annotations

import logging

import onnxruntime as ort
import pytest

from edge_assistant.config import EngineSettings
from edge_assistant.engine import runtime
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.providers import CPU, CUDA, TENSORRT, Provider, choose
from edge_assistant.engine.session import Session

AZURE = "AzureExecutionProvider"
"""A provider that every wheel names, and that computes nothing: a real one that is there and does not work."""


def works(_providers: tuple[Provider, ...]) -> None:
    return None


def no_code(_providers: tuple[Provider, ...]) -> str:
    return "no kernel image is available for execution on the device"


def no_tensorrt(providers: tuple[Provider, ...]) -> str | None:
    return "libnvinfer.so.10: cannot open shared object file" if providers[0][0] == TENSORRT else None


def names(providers: tuple[Provider, ...]) -> list[str]:
    return [name for name, _ in providers]


def settings(provider: str, gpu_memory_bytes: int = 1001) -> EngineSettings:
    return EngineSettings(provider=provider, gpu_memory_bytes=gpu_memory_bytes, threads=1)


@pytest.mark.parametrize(
    ("provider", "available", "probe", "expected", "reasons"),
    [
        ("auto", [CPU], works, [CPU], 0),
        ("auto", [CUDA, CPU], works, [CUDA, CPU], 0),
        ("auto", [CUDA, CPU], no_code, [CPU], 1),
        ("auto", [TENSORRT, CUDA, CPU], works, [CUDA, CPU], 0),
        ("cpu", [TENSORRT, CUDA, CPU], works, [CPU], 0),
        ("cuda", [CPU], works, [CPU], 1),
        ("cuda", [CUDA, CPU], works, [CUDA, CPU], 0),
        ("cuda", [CUDA, CPU], no_code, [CPU], 1),
        ("tensorrt", [TENSORRT, CUDA, CPU], works, [TENSORRT, CUDA, CPU], 0),
        ("tensorrt", [TENSORRT, CUDA, CPU], no_tensorrt, [CUDA, CPU], 1),
        ("tensorrt", [CUDA, CPU], works, [CUDA, CPU], 1),
        ("tensorrt", [TENSORRT, CUDA, CPU], no_code, [CPU], 2),
    ],
)
def test_the_first_that_is_there_and_works_is_taken(provider, available, probe, expected, reasons):
    choice = choose(settings(provider), available, probe)
    assert names(choice.providers) == expected
    assert choice.on_gpu is (expected != [CPU])
    assert len(choice.reasons) == reasons


def test_a_reason_says_which_and_why():
    (reason,) = choose(settings("cuda"), [CUDA, CPU], no_code).reasons
    assert reason == f"{CUDA} is not used: {no_code(())}"
    (reason,) = choose(settings("cuda"), [CPU], works).reasons
    assert reason == f"{CUDA} is not used: this onnxruntime is built without {CUDA}"


def test_nothing_that_is_not_wished_for_is_probed():
    probed: list[list[str]] = []
    choose(settings("cpu"), [TENSORRT, CUDA, CPU], lambda providers: probed.append(names(providers)))
    choose(settings("auto"), [AZURE, CPU], lambda providers: probed.append(names(providers)))
    assert probed == []


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_all_providers_together_keep_to_the_limit(provider):
    providers = choose(settings(provider), [TENSORRT, CUDA, CPU], works).providers
    limits = [int(options.get("gpu_mem_limit") or options["trt_max_workspace_size"]) for _, options in providers[:-1]]
    assert sum(limits) == 1001


def test_the_probe_computes_attention_and_finds_out_who_does_not():
    problem = runtime.probe([(AZURE, {})])
    assert problem is not None
    assert "fallback to CPU EP has been explicitly disabled" in problem


def test_the_probe_s_graph_is_attention_as_bundles_have_it(tiny_bundle):
    import onnx_ir as ir

    (node,) = ir.from_proto(ir.serde.onnx.ModelProto.FromString(runtime.PROBE_GRAPH)).graph
    model = ir.load(tiny_bundle().graph_path)
    (used, *_) = [one for one in model.graph if one.op_type == "GroupQueryAttention"]
    assert (node.op_type, node.domain) == (used.op_type, used.domain)
    inputs = {value.name: value for value in model.graph.inputs}
    past = inputs["past_key_values.0.key"]
    assert node.inputs[3].dtype == past.dtype == node.inputs[0].dtype


def test_the_probe_s_attention_is_right_where_it_may_be_computed():
    import numpy as np

    session = ort.InferenceSession(runtime.PROBE_GRAPH, providers=[CPU])
    query = np.random.default_rng(0).standard_normal((1, 1, 48)).astype(np.float32)
    past = np.zeros((1, 1, 8, 16), np.float32)
    feeds = {"seqlens_k": np.zeros(1, np.int32), "total": np.array(1, np.int32)}
    attended = session.run(["attended"], {"query": query, "past_key": past, "past_value": past} | feeds)[0]
    np.testing.assert_allclose(attended, query[..., 32:], atol=1e-6)


def logits(bundle, chosen: EngineSettings) -> list[float]:
    return Session(bundle, KvCache(bundle.manifest, 8), chosen).run([20, 30, 40]).tolist()


def test_a_provider_that_is_missing_is_said_and_the_cpu_answers(tiny_bundle, caplog):
    expected = logits(tiny_bundle(), settings("cpu"))
    assert not caplog.messages
    assert logits(tiny_bundle(), settings("cuda")) == expected
    assert caplog.messages == [f"{CUDA} is not used: this onnxruntime is built without {CUDA}"]


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_provider_that_is_probed_well_and_does_not_load_is_said_too(tiny_bundle, caplog, monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(runtime, "probe", works)
    expected = logits(tiny_bundle(), settings("cpu"))
    assert logits(tiny_bundle(), settings("auto")) == expected
    assert caplog.messages == [f"{CUDA} is not used: onnxruntime took {CPU}"]
    assert caplog.records[0].levelno == logging.WARNING


def test_a_bounded_cache_stays_with_the_processor(tiny_bundle, caplog, monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(runtime, "probe", works)
    bundle = tiny_bundle({"sliding_window": 8})
    assert bundle.manifest.cache.window == "bounded"
    assert logits(bundle, settings("auto")) == logits(bundle, settings("cpu"))
    assert caplog.messages == [f"{CUDA} is not used: the cache of this model's windows is bounded"]
