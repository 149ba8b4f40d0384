"""A cache in memory that is only reached by copies is a cache like any other, bit for bit.

No GPU is at hand. What stands in is memory on the processor that onnxruntime allocates, and that is taken for memory of
which there are copies alone. So these lines run as they would on a GPU; what onnxruntime does in them does not.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_assistant.config import EngineSettings
from edge_assistant.engine import Adapter, Engine, Keep, SamplingParams
from edge_assistant.engine import session as session_module
from edge_assistant.engine.evict import key_scales
from edge_assistant.engine.kv_cache import KvCache, slots
from edge_assistant.engine.memory import CUDA_DEVICE, HOST, Device, DeviceBuffer, on_host, place, rows_of, zeros
from edge_assistant.engine.providers import CPU, CUDA, TENSORRT
from edge_assistant.engine.runtime import device_of
from edge_assistant.engine.session import Session
from edge_assistant.errors import DeviceMemoryError

ELSEWHERE = Device("cpu", 0, addressable=False)
SETTINGS = EngineSettings(threads=1)
IDS = np.random.default_rng(5).integers(14, 270, 60)
RECIPES = {
    "float32": {"bits": 32},
    "float16": {"bits": 16, "dtype": "float16"},
    "int8": {"bits": 32, "cache": "int8"},
    "float16 and int8": {"bits": 16, "dtype": "float16", "cache": "int8"},
}


@pytest.fixture
def elsewhere(monkeypatch):
    """Let every session that is loaded find that it computes where the processor has no access."""
    monkeypatch.setattr(session_module, "device_of", lambda _: ELSEWHERE)


@pytest.fixture(params=RECIPES.values(), ids=RECIPES)
def bundle(request, tiny_bundle, tmp_path_factory):
    recipe = request.param
    if "cache" in recipe:
        text = tmp_path_factory.getbasetemp() / "calibration.txt"
        text.write_text("The lamp in the hall is on.")
        recipe = recipe | {"calibration": text}
    return tiny_bundle(**recipe)


def twins(bundle, capacity: int = 64) -> tuple[Session, Session]:
    """Return a session on the host, and one elsewhere."""
    there = Session(bundle, KvCache(bundle.manifest, capacity, key_scales=key_scales(bundle)), SETTINGS)
    assert isinstance(there.cache.layers[0][0], DeviceBuffer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_module, "device_of", lambda _: HOST)
        here = Session(bundle, KvCache(bundle.manifest, capacity, key_scales=key_scales(bundle)), SETTINGS)
    assert isinstance(here.cache.layers[0][0], np.ndarray)
    return here, there


def content(cache: KvCache) -> list[np.ndarray]:
    """Return what is in the rows of the context."""
    return [rows_of(buffer)[:, :, : cache.length] for layer in cache.layers for buffer in layer]


def assert_same(here: Session, there: Session) -> None:
    assert here.cache.length == there.cache.length
    np.testing.assert_array_equal(here.cache.context, there.cache.context)
    for one, other in zip(content(here.cache), content(there.cache), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@given(first=st.integers(0, 3), length=st.integers(1, 4), number=st.integers(-9, 9))
def test_some_sequences_of_a_buffer_are_its_own_memory(dtype, first, length, number):
    buffer = zeros((5, 2, 3, 4), np.dtype(dtype), ELSEWHERE)
    array = zeros((5, 2, 3, 4), np.dtype(dtype), HOST)
    some = slice(first, first + length)
    for whole in (buffer, array):
        with on_host(whole[some]) as rows:
            rows[:, 1] = number
    np.testing.assert_array_equal(rows_of(buffer), array)
    part, own = buffer[some], array[some]
    assert part.shape == own.shape
    np.testing.assert_array_equal(rows_of(part), own)
    assert place(part).pointer - place(buffer).pointer == place(own).pointer - place(array).pointer
    assert place(part)[2:4] == place(own)[2:4]


def test_what_is_read_is_a_copy_and_the_host_s_is_not():
    buffer, array = (zeros((1, 1, 2, 4), np.dtype(np.float16), device) for device in (ELSEWHERE, HOST))
    for whole in (buffer, array):
        rows_of(whole)[:] = 1
    assert not rows_of(buffer).any()
    assert array.all()
    assert rows_of(array) is array
    with on_host(array) as rows:
        assert rows is array


def test_a_change_that_fails_is_not_taken_back():
    buffer = zeros((1, 1, 2, 4), np.dtype(np.float32), ELSEWHERE)

    def fail() -> None:
        with on_host(buffer) as rows:
            rows[:] = 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not rows_of(buffer).any()


@pytest.mark.parametrize(
    ("device", "rows", "said"),
    [(ELSEWHERE, 2**48, "cpu gives no 2251799813685248 bytes"), (CUDA_DEVICE, 1, "cuda gives")],
)
def test_a_device_without_the_memory_says_so(device, rows, said):
    if device == CUDA_DEVICE and CUDA in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA, and may have the memory")
    with pytest.raises(DeviceMemoryError, match=said) as caught:
        zeros((1, 1, rows, 4), np.dtype(np.float16), device)
    assert isinstance(caught.value, MemoryError)


@pytest.mark.parametrize(("first", "device"), [(CPU, HOST), (CUDA, CUDA_DEVICE), (TENSORRT, CUDA_DEVICE)])
def test_a_cache_lies_where_the_first_provider_computes(first, device):
    assert device_of(SimpleNamespace(get_providers=lambda: [first, CPU])) == device


def test_a_cache_that_is_where_it_should_be_stays_itself(tiny_bundle):
    cache = KvCache(tiny_bundle().manifest, 12)
    assert cache.on(HOST) is cache
    other = cache.on(ELSEWHERE)
    assert (other.device, other.capacity, other.token_bytes) == (ELSEWHERE, 12, cache.token_bytes)
    assert other.on(ELSEWHERE) is other


@pytest.mark.usefixtures("elsewhere")
def test_steps_rewinds_and_evictions_are_the_same(bundle):
    here, there = twins(bundle)
    for session in (here, there):
        for start in range(0, 50, 13):
            session.run(IDS[start : start + 13])
        session.cache.rewind(41)
        session.cache.evict(4, 17)
    np.testing.assert_array_equal(here.run(IDS[50:]), there.run(IDS[50:]))
    np.testing.assert_array_equal(here.run_rows(IDS[:5], 3), there.run_rows(IDS[:5], 3))
    assert_same(here, there)


@pytest.mark.usefixtures("elsewhere")
def test_rows_come_and_go(bundle):
    here, there = twins(bundle)
    here.run(IDS[:30])
    rows = here.cache.copy_rows(0, 30)
    assert rows.nbytes == 30 * here.cache.token_bytes
    there.cache.put(IDS[:30], rows)
    assert_same(here, there)
    np.testing.assert_array_equal(there.cache.copy_rows(7, 30), rows[..., 7:, :])
    np.testing.assert_array_equal(here.run(IDS[30:40]), there.run(IDS[30:40]))


@pytest.mark.usefixtures("elsewhere")
def test_a_bounded_window_goes_back_all_the_same(tiny_bundle):
    bundle = tiny_bundle({"sliding_window": 6, "max_position_embeddings": 2048})
    here, there = twins(bundle, 1400)
    long = np.random.default_rng(6).integers(14, 270, 1300)
    assert there.cache.layers[0][0].shape[2] < 1400
    for session in (here, there):
        for chunk in session.chunks(long):
            session.run(chunk)
        session.cache.rewind(700)  # where rows have been written again since
    # A longer step would see nothing of what was there before.
    np.testing.assert_array_equal(here.run(IDS[:2]), there.run(IDS[:2]))


@pytest.mark.usefixtures("elsewhere")
def test_sequences_step_together(bundle):
    lengths, logits = (13, 0, 40), []
    for device in (HOST, ELSEWHERE):
        layers, caches = slots(bundle.manifest, 64, 3, device=device)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session_module, "device_of", lambda _, device=device: device)
            loaded = Session(bundle, KvCache(bundle.manifest, 1), SETTINGS)
        for cache, length in zip(caches, lengths, strict=True):
            if length:
                loaded.another(cache).run(IDS[:length])
        logits.append(loaded.together(layers, caches).run({0: 20, 2: 30}).copy())
        assert [cache.length for cache in caches] == [14, 0, 41]
    np.testing.assert_array_equal(*logits)


def said(bundle, adapter=None) -> list[list[int]]:
    """Return answers that need all that is done to a cache: prefixes, dropped turns, room that is made."""
    settings = EngineSettings(threads=1, kv_cache_bytes=2 * bundle.manifest.cache_size.of(80), sequences=2)
    params = SamplingParams(temperature=0, max_tokens=12)
    sliding = SamplingParams(temperature=0, max_tokens=60, overflow="slide")
    start = [1, *IDS[:24].tolist()]
    prompts = [(start, params), (start + IDS[30:50].tolist(), params), ([*start, 40, 50], sliding), (start, params)]
    with Engine.load(bundle, settings) as engine:
        loaded = adapter and Adapter.load(adapter, bundle.manifest)
        return [list(engine.generate(ids, one, keep=Keep(20), adapter=loaded)) for ids, one in prompts]


def test_answers_are_the_same(bundle, monkeypatch):
    expected = said(bundle)
    monkeypatch.setattr(session_module, "device_of", lambda _: ELSEWHERE)
    assert said(bundle) == expected


def test_what_one_has_computed_is_not_read_by_another(tiny_bundle, tmp_path, monkeypatch):
    keep, params = Keep(20, lasting=True), SamplingParams(temperature=0, max_tokens=1)
    for device, folders in ((HOST, 1), (HOST, 1), (ELSEWHERE, 2)):
        monkeypatch.setattr(session_module, "device_of", lambda _, device=device: device)
        with Engine.load(tiny_bundle(), SETTINGS, tmp_path) as engine:
            list(engine.generate(IDS[:24].tolist(), params, keep=keep))
        assert len([path for path in tmp_path.iterdir() if any(path.glob("*.prefix"))]) == folders


def test_answers_with_an_adapter_are_the_same(tiny_bundle, lora_file, tmp_path, monkeypatch):
    bundle = tiny_bundle(bits=16, dtype="float16", lora_rank=4)
    adapter = lora_file(tmp_path / "a.npz", bundle)
    expected = said(bundle, adapter)
    assert expected != said(bundle)
    monkeypatch.setattr(session_module, "device_of", lambda _: ELSEWHERE)
    assert said(bundle, adapter) == expected
