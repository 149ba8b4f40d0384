"""A session: however a context is read, and however often it is rewound, the logits are those of the reference.

Tolerances on logits that spread over some ±15: 1e-4 in float32, also against numpy. Where weights or cache are
quantised, 0.3: the int8 products of one row and of many differ in rounding (4 bits: 0.09 seen, 1e-5 from 8 rows on).
"""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from edge_assistant.bundle import Bundle, FileEntry
from edge_assistant.config import EngineSettings
from edge_assistant.device.memory import resident
from edge_assistant.engine import Engine
from edge_assistant.engine.kv_cache import KvCache, slots
from edge_assistant.engine.session import Session
from edge_assistant.errors import BundleGraphError

SETTINGS = EngineSettings(threads=1)
LENGTH = 40
IDS = np.random.default_rng(1).integers(14, 270, LENGTH)
RECIPES = [({"bits": 32}, 1e-4), ({"bits": 4}, 0.3), ({"bits": 8}, 0.3), ({"bits": 32, "cache": "int8"}, 0.3)]


def session_of(bundle: Bundle, capacity: int = LENGTH) -> Session:
    return Session(bundle, KvCache(bundle.manifest, capacity), SETTINGS)


def read(session: Session, ids: np.ndarray, chunk: int) -> list[np.ndarray]:
    """Read ids in chunks and return the logits after the last of each."""
    return [session.run(ids[start : start + chunk]).copy() for start in range(0, len(ids), chunk)]


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"num_key_value_heads": 4, "head_dim": 24, "intermediate_size": 86, "tie_word_embeddings": True},
        {"sliding_window": 8},
    ],
    ids=["grouped", "odd sizes", "window"],
)
def test_prefill_chunks_and_steps_equal_the_reference(tiny_bundle, tiny_checkpoint, shape):
    from edge_assistant_export.checkpoint import Checkpoint
    from edge_assistant_export.reference import forward

    with Checkpoint.open(tiny_checkpoint(**shape)) as checkpoint:
        reference = forward(checkpoint, IDS)
    assert reference.max() - reference.min() > 10
    bundle = tiny_bundle(shape)
    for chunk in (LENGTH, 20, 8, 1):
        np.testing.assert_allclose(read(session_of(bundle), IDS, chunk), reference[chunk - 1 :: chunk], atol=1e-4)
    np.testing.assert_allclose(session_of(bundle).run_rows(IDS, len(IDS)), reference, atol=1e-4)


@pytest.mark.parametrize(("recipe", "tolerance"), RECIPES)
def test_prefill_chunks_and_steps_are_one(tiny_bundle, recipe, tolerance):
    bundle = tiny_bundle(**recipe)
    whole = session_of(bundle).run_rows(IDS, len(IDS))
    for chunk in (LENGTH, 20, 8, 1):
        np.testing.assert_allclose(read(session_of(bundle), IDS, chunk), whole[chunk - 1 :: chunk], atol=tolerance)


@pytest.mark.parametrize("recipe", [recipe for recipe, _ in RECIPES])
def test_a_rewound_cache_is_a_fresh_one(tiny_bundle, recipe):
    bundle = tiny_bundle(**recipe)
    session = session_of(bundle)
    for kept in (0, 1, 13, LENGTH - 1):
        session.cache.rewind(0)
        read(session, IDS[:kept], 16)
        read(session, np.roll(IDS, 7)[kept:], 16)
        session.cache.rewind(kept)
        fresh = session_of(bundle)
        read(fresh, IDS[:kept], 16)
        # The same steps over the same rows: not even the rounding differs.
        np.testing.assert_array_equal(read(session, IDS[kept:], 16), read(fresh, IDS[kept:], 16))


def test_steps_reuse_one_buffer_of_logits(tiny_bundle):
    session = session_of(tiny_bundle())
    assert session.run([1]) is not None
    assert np.shares_memory(session.run([2]), session.run([3]))


@pytest.mark.parametrize(("shape", "recipe", "tolerance"), [({}, *recipe) for recipe in RECIPES])
def test_a_step_together_is_a_step_of_each(tiny_bundle, shape, recipe, tolerance):
    """Of four sequences, one full, one empty, and of different lengths, those that take no part are as before."""
    bundle = tiny_bundle(shape, **recipe)
    layers, caches = slots(bundle.manifest, LENGTH, 4)
    first = Session(bundle, caches[0], SETTINGS)
    sessions = [first, *map(first.another, caches[1:])]
    together = first.together(layers, caches)
    for number, length in enumerate((LENGTH - 2, LENGTH, 0, 13)):
        read(sessions[number], np.roll(IDS, number)[:length], 16)
    for step in (LENGTH - 2, LENGTH - 1):
        logits = together.run({0: int(IDS[step]), 3: 20 + step})
        assert logits.shape == (2, 270)
    assert [cache.length for cache in caches] == [LENGTH, LENGTH - 1, 0, 15]
    alone = session_of(bundle)
    np.testing.assert_allclose(logits[0], read(alone, IDS, 16)[-1], atol=tolerance)
    alone.cache.rewind(0)
    np.testing.assert_allclose(logits[1], read(alone, [*np.roll(IDS, 3)[:13], 58, 59], 16)[-1], atol=tolerance)
    alone.cache.rewind(0)
    beside = np.roll(IDS, 1)
    np.testing.assert_allclose(sessions[1].run(beside[-1:]), read(alone, beside, 16)[-1], atol=tolerance)


WIDE = {"num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 128}
PER_TOKEN = 4 * 2 * 8 * 128 * 4
# The graph drops 513 positions whenever its 2,048 + 512 rows are full: so it does in the last step over this context.
AFTER_A_DROP = {"sliding_window": 2048, "max_position_embeddings": 2048 + 512 + 4 * 513 + 1}


@pytest.mark.parametrize(
    ("shape", "budget", "sequences", "positions"),
    [
        ({"max_position_embeddings": 4096}, 2**40, 1, 4096),
        ({"max_position_embeddings": 4096}, 4099 * PER_TOKEN, 4, 4096),
        (AFTER_A_DROP, 2**40, 1, 2048 + 2 * 512),
        (AFTER_A_DROP, 2**40, 2, 2 * (2048 + 2 * 512)),
        (AFTER_A_DROP, 1500 * PER_TOKEN, 1, 1500),
    ],
    ids=["full length", "of four", "bounded", "two bounded", "shorter than the window"],
)
def test_the_cache_is_resident_once_and_in_the_bytes_that_were_computed(
    tiny_bundle, shape, budget, sequences, positions
):
    bundle = tiny_bundle(WIDE | shape)
    script = Path(__file__).with_name("resident.py")
    command = [sys.executable, script, bundle.path, str(budget), str(sequences)]
    measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert measured["computed"] == positions * PER_TOKEN
    assert measured["resident"] == pytest.approx(measured["computed"], rel=0.02)


def with_files(bundle: Bundle, path: Path, graph: bytes, **architecture: int) -> Bundle:
    """Return a copy whose graph or manifest is another, with hashes that hold."""
    path.mkdir()
    for name in bundle.manifest.files:
        shutil.copy(bundle.path / name, path)
    (path / "model.onnx").write_bytes(graph)
    files = dict(bundle.manifest.files) | {"model.onnx": FileEntry.of(path / "model.onnx")}
    changed = replace(bundle.manifest, files=files, architecture=replace(bundle.manifest.architecture, **architecture))
    (path / "manifest.json").write_text(changed.to_json())
    return Bundle.open(path)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no GNU C library: freed memory goes back")
def test_what_was_freed_goes_back_to_the_system_when_a_load_ends(tiny_bundle):
    """Small blocks, and the last one stays: so the C library keeps the others as long as nobody asks for them."""
    libc, size, number = ctypes.CDLL(None), 1000, 40_000
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(size) for _ in range(number)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    *freed, last = blocks
    for block in freed:
        libc.free(block)
    before = resident().anonymous
    with Engine.load(tiny_bundle(), EngineSettings(threads=1)):
        assert resident().anonymous < before - 0.7 * size * number
    libc.free(last)


def test_a_graph_that_cannot_be_loaded_is_refused(tiny_bundle, tmp_path):
    for number, graph in enumerate((b"", b"no graph at all", tiny_bundle().graph_path.read_bytes()[:-100])):
        with pytest.raises(BundleGraphError, match=r"model\.onnx"):
            session_of(with_files(tiny_bundle(), tmp_path / str(number), graph))


@pytest.mark.parametrize(
    ("change", "named"),
    [({"n_layers": 3}, "past_key_values.2.key"), ({"head_dim": 8}, "present.0.value"), ({"vocab_size": 9}, "logits")],
)
def test_a_graph_that_is_not_the_manifest_s_is_refused(tiny_bundle, tmp_path, change, named):
    bundle = with_files(tiny_bundle(), tmp_path / "bundle", tiny_bundle().graph_path.read_bytes(), **change)
    with pytest.raises(BundleGraphError, match=named):
        session_of(bundle)


def test_a_graph_that_loads_and_does_not_run_is_named_while_it_loads(tiny_bundle, monkeypatch):
    def fail(*_):
        raise Fail("no kernel for this")

    bundle = tiny_bundle()
    monkeypatch.setattr(Session, "_feed", fail)
    with pytest.raises(BundleGraphError, match=r"model\.onnx(.|\n)*no kernel for this"):
        Engine.load(bundle, EngineSettings(threads=1))
