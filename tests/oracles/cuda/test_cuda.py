"""onnxruntime's CUDA provider takes our graphs whole, and what we say of it is so; its kernels do not run here."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from edge_assistant.config import EngineSettings
from edge_assistant.engine import Adapter, Engine, Keep, SamplingParams, runtime
from edge_assistant.engine.evict import key_scales
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.memory import CUDA_DEVICE, DeviceBuffer
from edge_assistant.engine.probe import probe
from edge_assistant.engine.providers import CPU, CUDA
from edge_assistant.engine.sampling import Sampler
from edge_assistant.engine.session import Session
from edge_assistant.errors import DeviceMemoryError

pytestmark = pytest.mark.cuda

ON_CUDA = [(CUDA, {})]
IDS = np.random.default_rng(5).integers(14, 270, 60)
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2, "hidden_size": 128, "intermediate_size": 128}
RECIPES = {
    "float16": ({}, {"bits": 16}),
    "int4": ({}, {"bits": 4}),
    "int4 with zero points and an 8-bit head": ({}, {"bits": 4, "zero_points": True, "eight_bits": ("lm_head",)}),
    "int8 cache": ({}, {"bits": 4, "cache": "int8"}),
    "heads rotated in the graph": ({"head_dim": 24}, {"bits": 4}),
    "window": ({"sliding_window": 8}, {"bits": 4, "window_cache": "full"}),
    "adapters": ({}, {"bits": 4, "lora_rank": 4}),
    "mixture": (MIXTURE, {"bits": 4, "block_size": 64}),
    "mixture of floats": (MIXTURE, {"bits": 16}),
}


@pytest.fixture(params=RECIPES.values(), ids=RECIPES)
def bundle(request, tiny_bundle, calibration):
    shape, recipe = request.param
    return tiny_bundle(shape, dtype="float16", **recipe, **(calibration if recipe.get("cache") else {}))


@pytest.fixture(scope="session")
def calibration(tmp_path_factory):
    text = tmp_path_factory.mktemp("text") / "calibration.txt"
    text.write_text("The lamp in the hall is on.")
    return {"calibration": text}


@pytest.fixture
def gpu(libraries, monkeypatch):
    """A GPU that is trusted: no probe finds out that it computes nothing."""
    libraries.leave(1 << 30)
    monkeypatch.setattr(runtime, "probe", lambda *_, **__: None)
    return libraries


def settings(**changes) -> EngineSettings:
    return EngineSettings(provider="cuda", gpu_memory_bytes=1 << 28, threads=1, **changes)


def loaded(bundle, capacity: int = 64, **kwargs) -> Session:
    session = Session(bundle, KvCache(bundle.manifest, capacity, key_scales=key_scales(bundle)), settings(), **kwargs)
    assert session.device == CUDA_DEVICE
    assert isinstance(session.cache.layers[0][0], DeviceBuffer)
    return session


def test_what_computes_nothing_is_found_out_and_the_processor_answers(libraries, bundle, caplog):
    expected = Session(bundle, KvCache(bundle.manifest, 8), EngineSettings(provider="cpu", threads=1)).run(IDS[:5])
    session = Session(bundle, KvCache(bundle.manifest, 8), settings())
    assert session.run(IDS[:5]).tolist() == expected.tolist()
    attention = f"attention in float16 over a cache of {bundle.manifest.cache.type}"
    assert caplog.messages == [f"{CUDA} is not used: {attention} is computed wrongly there"]


def test_every_operator_that_is_probed_is_one_that_cuda_has(libraries, bundle, monkeypatch):
    """Were it right, the next would be asked: all run there, and none on the processor instead."""
    monkeypatch.setattr("edge_assistant.engine.probe.agree", lambda *_: True)
    libraries.forget()
    assert probe(ON_CUDA, bundle.manifest) is None
    assert libraries.launched > 0


@pytest.mark.parametrize("cache", ["float", "int8"])
def test_attention_in_float32_is_none_of_cuda_s(libraries, tiny_bundle, calibration, cache):
    manifest = tiny_bundle(bits=4, cache=cache, **(calibration if cache == "int8" else {})).manifest
    said = f"attention in float32 over a cache of {manifest.cache.type} does not run there"
    assert probe(ON_CUDA, manifest).startswith(said)


def test_the_graph_lies_on_the_gpu_whole(gpu, bundle, tmp_path):
    """But for arithmetic with its shapes."""
    session = loaded(bundle, profile=tmp_path / "profile")
    for ids in (IDS[:20], IDS[:1]):
        session.run(ids)
    session.run_rows(IDS[:4], 3)
    events = json.loads(session.end_profiling().read_text())
    runs = [event["args"] for event in events if event["cat"] == "Node" and event["name"].endswith("_kernel_time")]
    by_provider = {name: Counter(run["op_name"] for run in runs if run["provider"] == name) for name in (CUDA, CPU)}
    assert by_provider[CUDA]["GroupQueryAttention"] == 3 * bundle.manifest.architecture.n_layers
    assert by_provider[CPU].keys() <= {"Cast", "Concat", "Gather", "Max", "Mul", "Range", "Sub", "Unsqueeze"}
    assert "MemcpyToHost" not in by_provider[CUDA]  # nothing is waited for in the middle of a step


def test_a_step_brings_tokens_and_a_mask_and_takes_logits(gpu, bundle):
    session = loaded(bundle)
    session.run(IDS[:10])
    for tokens, rows in ((1, 1), (5, 1), (5, 3)):
        gpu.forget()
        session.run_rows(IDS[:tokens], rows) if rows > 1 else session.run(IDS[:tokens])
        brought, taken = gpu.copied
        # Heads that the kernel does not rotate are rotated by positions, which the graph counts from a step's length.
        lengths = bundle.manifest.architecture.head_dim % 16 != 0
        assert brought == (tokens + session.cache.length + lengths) * 8
        assert taken == rows * bundle.manifest.architecture.vocab_size * 4


def test_a_graph_in_float32_would_go_to_and_fro(gpu, tiny_bundle):
    """What a bundle in float32 would cost there: the caches and each layer's input and output, in every step."""
    manifest = (bundle := tiny_bundle(bits=4)).manifest
    session = loaded(bundle)
    gpu.forget()
    session.run(IDS[:1])
    assert gpu.copied[1] > manifest.architecture.vocab_size * 4
    assert gpu.copied[0] > sum(np.prod(key.shape) * 4 for key, _ in session.cache.layers)


def test_what_is_written_there_is_read_there(gpu, bundle):
    cache = loaded(bundle).cache
    rng = np.random.default_rng(1)
    for key, value in cache.layers:
        for buffer in (key, value):
            content = (rng.random(buffer.shape) * 100).astype(buffer.dtype)
            buffer.write(content)
            assert np.array_equal(buffer.read(), content)


@pytest.mark.parametrize("together", [False, True])
def test_prefixes_evictions_batches_and_answers_go_their_ways(gpu, bundle, lora_file, tmp_path, monkeypatch, together):
    """None of it takes the GPU's memory for the processor's, which would end this process."""
    # Logits that no kernel has written may be no numbers; always the same token is a text to guess from.
    monkeypatch.setattr(Sampler, "sample", lambda *_: int(IDS[0]))
    params = SamplingParams(temperature=0, max_tokens=12)
    sliding = SamplingParams(temperature=0, max_tokens=60, overflow="slide")
    start = [1, *IDS[:24].tolist()]
    asked = [(start, params), (start + IDS[30:50].tolist(), params), ([*start, 40, 50], sliding), (start, params)]
    budget = 2 * bundle.manifest.cache_size.of(80)
    adapter = Adapter.load(lora_file(tmp_path / "a.npz", bundle), bundle.manifest) if bundle.manifest.lora else None
    for _restart in range(2):
        with Engine.load(bundle, settings(sequences=2, kv_cache_bytes=budget), tmp_path) as engine:
            answers = (engine.generate(ids, each, keep=Keep(20, lasting=True), adapter=adapter) for ids, each in asked)
            lengths = [len(list(answer)) for answer in (list(answers) if together else answers)]
        assert all(lengths)


def test_what_does_not_fit_is_said(gpu, tiny_bundle, caplog):
    bundle = tiny_bundle(bits=16, dtype="float16")
    gpu.leave(0)
    expected = Session(bundle, KvCache(bundle.manifest, 8), EngineSettings(provider="cpu", threads=1)).run(IDS[:5])
    assert Session(bundle, KvCache(bundle.manifest, 8), settings()).run(IDS[:5]).tolist() == expected.tolist()
    assert f"on {CUDA} is not used" in caplog.text
    gpu.leave(8 << 20)
    with pytest.raises(DeviceMemoryError, match="cuda"):
        Session(bundle, KvCache(bundle.manifest, 1 << 16), settings())


def test_weights_keep_to_the_limit(gpu, tiny_bundle, caplog):
    bundle = tiny_bundle(bits=16, dtype="float16")
    few = EngineSettings(provider="cuda", gpu_memory_bytes=1 << 14, threads=1)
    session = Session(bundle, KvCache(bundle.manifest, 8), few)
    assert session.device.type == "cpu"
    assert f"on {CUDA} is not used" in caplog.text


def test_tensorrt_without_its_libraries_is_left_for_cuda(libraries, tiny_bundle, caplog):
    """The wheel names it, and what it is linked with is not there: that is found out before a bundle is loaded."""
    bundle = tiny_bundle(bits=16, dtype="float16")
    Session(
        bundle, KvCache(bundle.manifest, 8), EngineSettings(provider="tensorrt", gpu_memory_bytes=1 << 28, threads=1)
    )
    assert [message.split()[0] for message in caplog.messages] == ["TensorrtExecutionProvider", CUDA]


@pytest.mark.usefixtures("real_gpu")
def test_a_gpu_computes_as_the_processor_does(bundle):
    """The one test here that asks for right numbers; nobody has run it yet."""
    capacity, scales = 64, key_scales(bundle)
    processor = Session(bundle, KvCache(bundle.manifest, capacity, key_scales=scales), EngineSettings(provider="cpu"))
    there = loaded(bundle)
    for ids in (IDS[:20], IDS[20:21], IDS[21:28]):
        expected, found = processor.run_rows(ids, len(ids)), there.run_rows(ids, len(ids))
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
