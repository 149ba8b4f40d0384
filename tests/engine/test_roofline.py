"""The roofline against what the exporter plans, and the shares of operators against what a profile must be."""

from __future__ import annotations

import resource
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_assistant.bundle import Bundle, Manifest
from edge_assistant.config import EngineSettings
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.roofline import (
    cache_bytes_per_token,
    operator_shares,
    read_bandwidth,
    shares,
    weight_bytes_per_token,
)
from edge_assistant.errors import ProfileError

MODELS = Path(__file__).parents[2] / "models"
HOMES = ["home-mini", "home-mini-moe"]


def home(name: str) -> Manifest:
    return Bundle.open(MODELS / name).manifest


def planned(manifest: Manifest) -> int:
    """Return what the exporter's plan of the file says that a token reads, zero points and routers included."""
    from edge_assistant_export.weights import ExpertMatrices, plan_weights

    shape = manifest.architecture
    weights = plan_weights(shape, manifest.quantization)

    def size(*matrices) -> int:
        return sum(place.nbytes for matrix in matrices for place in matrix.places)

    read = size(weights.lm_head)
    for layer in weights.layers:
        read += size(layer.qkv, layer.o)
        if isinstance(layer.feed_forward, ExpertMatrices):
            experts = size(layer.feed_forward.fc1, layer.feed_forward.fc2)
            read += size(layer.feed_forward.router) + experts * shape.n_experts_per_token // shape.n_experts
        else:
            read += size(*layer.feed_forward)
    return read


@pytest.mark.parametrize("name", HOMES)
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"zero_points": True},
        {"block_size": 128},
        {"eight_bits": ("embedding", "layers.0.qkv", "layers.1.experts", "layers.2.down")},
        {"block_size": 128, "small_blocks": ("layers.0.o", "layers.1.experts", "layers.2.gate_up")},
        {"bits": 8},
        {"bits": 32, "block_size": None},
    ],
    ids=str,
)
def test_a_token_reads_what_the_exporter_plans(name, changed):
    manifest = home(name)
    manifest = replace(manifest, quantization=replace(manifest.quantization, **changed))
    assert weight_bytes_per_token(manifest) == planned(manifest)


def test_an_embedding_of_its_own_is_not_read():
    tied = home("home-mini")
    untied = replace(tied, architecture=replace(tied.architecture, tied_embedding=False))
    assert weight_bytes_per_token(untied) == planned(untied) == weight_bytes_per_token(tied)


def test_dense_weights_are_the_file_but_for_tables_and_norms():
    manifest = home("home-mini")
    shape, stored = manifest.architecture, manifest.files["model.onnx.data"].bytes
    rest = 4 * shape.max_positions * shape.head_dim + 4 * shape.hidden_size * (2 * shape.n_layers + 1)
    assert weight_bytes_per_token(manifest) <= stored <= weight_bytes_per_token(manifest) + rest + 4096 * 60


def test_a_token_reads_the_cache_it_attends_to(tiny_bundle):
    manifest = home("home-mini")
    assert cache_bytes_per_token(manifest, 100) == manifest.cache_size.of(100)
    windowed = tiny_bundle({"sliding_window": 8}).manifest
    assert cache_bytes_per_token(windowed, 100) == cache_bytes_per_token(windowed, 8) == windowed.cache_size.of(8)


@pytest.mark.parametrize("threads", [1, 3])
def test_bandwidth_is_measured_with_any_number_of_threads(threads):
    assert read_bandwidth(threads, most_bytes=1 << 20) > 0


@pytest.mark.parametrize(("name", "operator"), [("home-mini", "MatMulNBits"), ("home-mini-moe", "QMoE")])
def test_operators_share_a_step(name, operator, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bundle = Bundle.open(MODELS / name)
    found = operator_shares(bundle, EngineSettings(threads=1), list(range(20, 60)))
    assert {operator, "MatMulNBits", "GroupQueryAttention"} <= found.keys()
    assert 0 < sum(found.values()) <= 1
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert not list(tmp_path.iterdir())


def test_only_the_last_runs_count():
    def event(cat: str, name: str, ts: int, dur: int, **args: str) -> dict:
        return {"cat": cat, "name": name, "ts": ts, "dur": dur, "args": args}

    events = [
        event("Session", "session_initialization", 0, 50),
        event("Session", "model_run", 100, 1000),
        event("Node", "a_kernel_time", 110, 900, op_name="Load"),
        event("Session", "model_run", 2000, 100),
        event("Node", "a_kernel_time", 2010, 60, op_name="A"),
        event("Node", "b_kernel_time", 2080, 10, op_name="B"),
        event("Session", "model_run", 3000, 100),
        event("Node", "b_fence_before", 3005, 99, op_name="B"),
        event("Node", "b_kernel_time", 3010, 30, op_name="B"),
    ]
    assert shares(reversed(events), 2) == {"A": pytest.approx(0.3), "B": pytest.approx(0.2)}


def test_profiling_changes_no_answer(tmp_path):
    from edge_assistant.engine.session import Session

    bundle = Bundle.open(MODELS / "home-mini")
    plain, profiled = (
        Session(bundle, KvCache(bundle.manifest, 8), EngineSettings(threads=1), profile=profile)
        for profile in (None, tmp_path / "profile")
    )
    np.testing.assert_array_equal(plain.run([5, 6, 7]), profiled.run([5, 6, 7]))
    assert profiled.end_profiling().parent == tmp_path


def test_operators_share_a_step_behind_the_longest_prompt_that_can_be_answered(tiny_bundle):
    bundle = tiny_bundle()
    prompt = [20] * (bundle.manifest.architecture.max_positions - 2)
    assert "GroupQueryAttention" in operator_shares(bundle, EngineSettings(threads=1), prompt)


def test_a_disk_without_room_for_the_times_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(ProfileError, match=str(tmp_path)):
            operator_shares(Bundle.open(MODELS / "home-mini"), EngineSettings(threads=1), [20] * 8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
