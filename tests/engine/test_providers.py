"""Which provider computes; the list of those there are, and whether one works, stand in for machines with a GPU."""

from __future__ import annotations

import logging

import numpy as np
import onnxruntime as ort
import pytest

from edge_assistant.config import EngineSettings
from edge_assistant.engine import runtime
from edge_assistant.engine import session as session_module
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.memory import Device, DeviceBuffer
from edge_assistant.engine.providers import CPU, CUDA, TENSORRT, Choice, Provider, choose
from edge_assistant.engine.session import Session
from edge_assistant.errors import DeviceMemoryError

TYPES = [("float32", "float32"), ("float32", "int8"), ("float16", "float16"), ("float16", "int8")]
AZURE = "AzureExecutionProvider"
"""A provider that every wheel names, and that computes nothing: a real one that is there and does not work."""


def works(_providers: tuple[Provider, ...], **_types: str) -> None:
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
    for types in TYPES:
        problem = runtime.probe([(AZURE, {})], *types)
        assert problem is not None
        assert problem.startswith(f"attention in {types[0]} over a cache of {types[1]} does not run there")
        assert "fallback to CPU EP has been explicitly disabled" in problem


@pytest.mark.parametrize("types", TYPES)
def test_the_probe_knows_what_attends_rightly(types):
    session = ort.InferenceSession(runtime.PROBE_GRAPHS[types], providers=[CPU])
    assert runtime.attends(session, *types)


def test_the_probe_knows_what_attends_wrongly():
    import onnx_ir as ir

    types = ("float16", "int8")
    model = ir.from_proto(ir.serde.onnx.ModelProto.FromString(runtime.PROBE_GRAPHS[types]))
    model.graph.initializers["scale"].const_value = ir.tensor(np.ones((1, 1, 1, 16), np.float32), name="scale")
    broken = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=[CPU])
    assert not runtime.attends(broken, *types)


def attribute(node, name: str):
    return node.attributes[name].value if name in node.attributes else None


@pytest.mark.parametrize("types", TYPES)
def test_the_probe_s_graph_is_attention_as_bundles_have_it(types, tiny_bundle, tmp_path):
    import onnx_ir as ir

    dtype, cache = types
    recipe = {"bits": 16 if dtype == "float16" else 32, "dtype": dtype}
    if cache == "int8":
        (tmp_path / "text").write_text("The lamp is on.")
        recipe |= {"cache": cache, "calibration": tmp_path / "text"}
    bundle = tiny_bundle(**recipe)
    assert types == (bundle.manifest.quantization.dtype, bundle.manifest.cache.type)
    (node,) = ir.from_proto(ir.serde.onnx.ModelProto.FromString(runtime.PROBE_GRAPHS[types])).graph
    model = ir.load(bundle.graph_path)
    (used, *_) = [one for one in model.graph if one.op_type == "GroupQueryAttention"]
    assert (node.op_type, node.domain) == (used.op_type, used.domain)
    inputs = {value.name: value for value in model.graph.inputs}
    past = inputs["past_key_values.0.key"]
    assert node.inputs[3].dtype == past.dtype
    assert node.inputs[0].dtype == ir.DataType.from_numpy(np.dtype(dtype))
    for name in ("kv_cache_bit_width", "k_quant_type", "v_quant_type"):
        assert attribute(node, name) == attribute(used, name)


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


def test_a_provider_that_loads_is_taken_and_the_cache_lies_with_it(tiny_bundle, caplog, monkeypatch):
    """A provider without operators stands in for a GPU: the processor computes, from memory that is not its own."""
    expected = logits(tiny_bundle(), settings("cpu"))
    monkeypatch.setattr(runtime, "choose", lambda *_: Choice(((AZURE, {}), (CPU, {})), ()))
    if CUDA not in ort.get_available_providers():
        with pytest.raises(DeviceMemoryError, match="cuda gives no"):
            logits(tiny_bundle(), settings("auto"))
    monkeypatch.setattr(session_module, "device_of", lambda _: Device("cpu", 0, addressable=False))
    session = Session(tiny_bundle(), KvCache(tiny_bundle().manifest, 8), settings("auto"))
    assert isinstance(session.cache.layers[0][0], DeviceBuffer)
    assert session.run([20, 30, 40]).tolist() == expected
    assert not caplog.messages


def test_a_bounded_cache_stays_with_the_processor(tiny_bundle, caplog, monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(runtime, "probe", works)
    bundle = tiny_bundle({"sliding_window": 8})
    assert bundle.manifest.cache.window == "bounded"
    assert logits(bundle, settings("auto")) == logits(bundle, settings("cpu"))
    (said,) = caplog.messages
    assert said.startswith(f"{CUDA} is not used: the cache of this model's windows is bounded")


def test_a_mixture_s_experts_stay_with_the_processor(tiny_bundle, caplog, monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(runtime, "probe", works)
    bundle = tiny_bundle({"num_local_experts": 4, "num_experts_per_tok": 2}, bits=4, dtype="float16")
    assert logits(bundle, settings("auto")) == logits(bundle, settings("cpu"))
    (said,) = caplog.messages
    assert said.startswith(f"{CUDA} is not used: its kernel for a mixture's experts")


def test_a_bundle_is_probed_in_its_own_types(tiny_bundle, monkeypatch):
    probed = []

    def probe(providers, dtype, cache):
        probed.append((names(providers), dtype, cache))
        return "no"

    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(runtime, "probe", probe)
    for bits, dtype in ((32, "float32"), (16, "float16")):
        logits(tiny_bundle(bits=bits, dtype=dtype), settings("auto"))
    assert probed == [([CUDA], "float32", "float32"), ([CUDA], "float16", "float16")]
