"""Which provider computes; the list of those there are, and whether one works, stand in for machines with a GPU."""

from __future__ import annotations

import logging

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


def test_a_bundle_is_probed_for_what_it_is_made_of(tiny_bundle, monkeypatch):
    probed = []

    def probe(providers, manifest):
        probed.append((names(providers), manifest))
        return "no"

    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(runtime, "probe", probe)
    bundles = [tiny_bundle(bits=bits, dtype=dtype) for bits, dtype in ((32, "float32"), (16, "float16"))]
    for bundle in bundles:
        logits(bundle, settings("auto"))
    assert probed == [([CUDA], bundle.manifest) for bundle in bundles]
