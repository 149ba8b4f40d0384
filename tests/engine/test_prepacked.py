"""Prepacked weights: what is loaded from them answers bit for bit like the bundle, and what is broken is not loaded."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine import prepacked
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.prepacked import find_prepacked, prepacked_folder, write_prepacked
from edge_assistant.engine.session import Session
from edge_assistant.engine.tuning import Fingerprint
from edge_assistant.errors import PrepackedError

SETTINGS = EngineSettings(threads=1)
MODELS = Path(__file__).parents[2] / "models"
IDS = np.random.default_rng(3).integers(20, 250, 40)


def fingerprint_of(bundle: Bundle) -> Fingerprint:
    return Fingerprint.of(bundle.manifest, "a processor")


def written(bundle: Bundle, state: Path) -> Path:
    folder = prepacked_folder(state, bundle.manifest, fingerprint_of(bundle))
    write_prepacked(bundle, SETTINGS, folder, fingerprint_of(bundle))
    return folder


def answers(bundle: Bundle, folder: Path | None) -> np.ndarray:
    """Return all logits of a prompt in chunks, of single steps, and of a step of several rows."""
    session = Session(bundle, KvCache(bundle.manifest, 64), SETTINGS, folder)
    rows = [session.run(chunk).copy() for chunk in (IDS[:16], IDS[16:32], IDS[32:33], IDS[33:34])]
    return np.concatenate([np.stack(rows), session.run_rows(IDS[34:], 6)])


@pytest.mark.parametrize("model", ["home-mini", "home-mini-moe"])
def test_a_model_answers_bit_for_bit_alike(model, tmp_path, caplog):
    bundle = Bundle.open(MODELS / model)
    folder = written(bundle, tmp_path)
    assert find_prepacked(folder, fingerprint_of(bundle), None) == folder
    np.testing.assert_array_equal(answers(bundle, folder), answers(bundle, None))
    assert not caplog.messages


@pytest.mark.parametrize(
    "recipe",
    [
        {"bits": 4},
        {"bits": 4, "block_size": 128},
        {"bits": 4, "lora_rank": 4},
        {"bits": 8, "zero_points": True},
        {"bits": 32},
    ],
    ids=str,
)
def test_so_does_one_of_any_recipe(tiny_bundle, recipe, tmp_path, caplog):
    bundle = tiny_bundle(**recipe)
    np.testing.assert_array_equal(answers(bundle, written(bundle, tmp_path)), answers(bundle, None))
    assert not caplog.messages


def test_the_packed_weights_are_in_the_file(tmp_path):
    bundle = Bundle.open(MODELS / "home-mini")
    raw = bundle.manifest.files["model.onnx.data"].bytes
    assert (written(bundle, tmp_path) / "model.onnx.data").stat().st_size > 1.5 * raw


def test_where_nothing_is_written_nothing_is_found(tiny_bundle, tmp_path):
    bundle = tiny_bundle(bits=4)
    folder = prepacked_folder(tmp_path, bundle.manifest, fingerprint_of(bundle))
    assert find_prepacked(folder, fingerprint_of(bundle), None) is None


def flipped(folder: Path) -> None:
    data = bytearray((folder / "model.onnx.data").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx.data").write_bytes(data)


def shortened(folder: Path) -> None:
    data = (folder / "model.onnx.data").read_bytes()
    (folder / "model.onnx.data").write_bytes(data[:-1])


def renamed_inside(folder: Path) -> None:
    record = json.loads((folder / "record.json").read_bytes())
    record["fingerprint"]["cpu"] = "another"
    (folder / "record.json").write_text(json.dumps(record))


def pointing_elsewhere(folder: Path) -> None:
    record = json.loads((folder / "record.json").read_bytes())
    record["files"]["../model.onnx"] = record["files"].pop("model.onnx")
    (folder / "record.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    "spoil",
    [
        flipped,
        shortened,
        renamed_inside,
        pointing_elsewhere,
        lambda folder: (folder / "model.onnx").unlink(),
        lambda folder: (folder / "record.json").unlink(),
        lambda folder: (folder / "record.json").write_bytes(b"{"),
        lambda folder: (folder / "record.json").write_bytes(b'{"fingerprint": 1}'),
    ],
)
def test_what_is_broken_is_refused(tiny_bundle, tmp_path, spoil: Callable[[Path], object]):
    bundle = tiny_bundle(bits=4)
    folder = written(bundle, tmp_path)
    seen = tmp_path / "seen.json"
    assert find_prepacked(folder, fingerprint_of(bundle), seen) == folder
    spoil(folder)
    with pytest.raises(PrepackedError, match="run `edge-assistant warm` again"):
        find_prepacked(folder, fingerprint_of(bundle), seen)


def test_what_onnxruntime_cannot_load_is_replaced_by_the_bundle(tiny_bundle, tmp_path, caplog):
    bundle = tiny_bundle(bits=4)
    folder = written(bundle, tmp_path)
    (folder / "model.onnx").write_bytes(b"no graph")
    np.testing.assert_array_equal(answers(bundle, folder), answers(bundle, None))
    (message,) = caplog.messages
    assert message.startswith(f"{folder / 'model.onnx'} on CPUExecutionProvider is not used: ")


def test_a_new_folder_takes_the_place_of_all_before_it_and_of_no_other_model_s(tiny_bundle, tmp_path):
    bundle, older = tiny_bundle(bits=4), Fingerprint.of(tiny_bundle(bits=4).manifest, "another processor")
    old = prepacked_folder(tmp_path, bundle.manifest, older)
    other = prepacked_folder(tmp_path, replace(bundle.manifest, name=f"{bundle.manifest.name}-moe"), older)
    for folder in (old, other):
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"")
    new = written(bundle, tmp_path)
    assert new.is_dir()
    assert other.is_dir()
    assert list(new.parent.iterdir()) == [new]


def test_what_does_not_answer_alike_gets_no_name(tiny_bundle, tmp_path, monkeypatch):
    def spoiled(bundle: Bundle, settings: EngineSettings, folder: Path) -> None:
        for name in ("model.onnx", "model.onnx.data"):
            shutil.copy(tiny_bundle(bits=8).path / name, folder)

    bundle = tiny_bundle(bits=4)
    monkeypatch.setattr(prepacked, "save_prepacked", spoiled)
    with pytest.raises(PrepackedError, match="do not answer like"):
        written(bundle, tmp_path)
    assert not list(tmp_path.rglob("model.onnx*"))
    monkeypatch.undo()
    whole = written(bundle, tmp_path)
    monkeypatch.setattr(prepacked, "save_prepacked", spoiled)
    with pytest.raises(PrepackedError, match="do not answer like"):
        written(bundle, tmp_path)
    assert find_prepacked(whole, fingerprint_of(bundle), None) == whole  # what was there before still is


@pytest.mark.parametrize("model", ["home-mini-moe", None], ids=["crashes", "answers wrongly"])
def test_without_alignment_they_are_refused_or_right(model, tiny_bundle, tmp_path, monkeypatch):
    """Which of them it is depends on the processor: with AVX-512 the one crashes and the other answers wrongly."""
    bundle = Bundle.open(MODELS / model) if model else tiny_bundle(bits=4)
    monkeypatch.setattr(prepacked, "align", lambda graph, data: None)
    try:
        folder = written(bundle, tmp_path)
    except PrepackedError:
        assert not list(tmp_path.rglob("model.onnx*"))
    else:
        np.testing.assert_array_equal(answers(bundle, folder), answers(bundle, None))


def test_what_cannot_be_loaded_gets_no_name_either(tiny_bundle, tmp_path, monkeypatch):
    def spoiled(bundle: Bundle, settings: EngineSettings, folder: Path) -> None:
        shutil.copy(bundle.graph_path, folder)
        (folder / "model.onnx.data").write_bytes(b"")

    monkeypatch.setattr(prepacked, "save_prepacked", spoiled)
    with pytest.raises(PrepackedError):
        written(tiny_bundle(bits=4), tmp_path)
    assert not list(tmp_path.rglob("model.onnx*"))


def test_a_disk_that_is_too_full_is_said_before_anything_is_removed(tiny_bundle, tmp_path, monkeypatch):
    bundle = tiny_bundle(bits=4)
    folder = written(bundle, tmp_path)
    killed = folder.with_name("another.7.partial")
    killed.mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(PrepackedError, match="and 1 are free"):
        written(bundle, tmp_path)
    assert find_prepacked(folder, fingerprint_of(bundle), None) == folder
    assert not killed.exists()  # half a folder is only in the way


def test_a_folder_that_cannot_be_made_is_named(tiny_bundle, tmp_path):
    (tmp_path / "prepacked").touch()
    with pytest.raises(PrepackedError, match="Not a directory"):
        written(tiny_bundle(bits=4), tmp_path)


def test_those_before_stay_where_the_new_ones_get_no_name(tiny_bundle, tmp_path, monkeypatch):
    bundle = tiny_bundle(bits=4)
    folder = written(bundle, tmp_path)
    other = shutil.copytree(folder, folder.with_name("of-another-processor"))
    rename = Path.rename

    def refused(self, target):
        if self.name.endswith(".partial"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(PrepackedError, match="Input/output error"):
        written(bundle, tmp_path)
    assert find_prepacked(folder, fingerprint_of(bundle), None) == folder
    assert sorted(folder.parent.iterdir()) == sorted([folder, other])


def test_while_another_process_writes_them_they_are_left_alone(tiny_bundle, tmp_path):
    """What it has written by then is no rest of one that was killed."""
    bundle = tiny_bundle(bits=4)
    folder = prepacked_folder(tmp_path, bundle.manifest, fingerprint_of(bundle))
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True)
    lock = os.open(folder.parent, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(PrepackedError, match="another process is writing them"):
        written(bundle, tmp_path)
    assert partial.is_dir()
    os.close(lock)
    assert written(bundle, tmp_path) == folder


def test_a_disk_that_is_full_before_it_was_said_to_be_is_named(tiny_bundle, tmp_path):
    """And no bundle is said to be broken."""
    bundle, before = tiny_bundle(bits=4), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(PrepackedError, match="Failed to write"):
            written(bundle, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.rglob("model.onnx*"))
