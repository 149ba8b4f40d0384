"""What is used at a load: the configuration above what was tuned, and nothing that is stale or broken."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings, Settings
from edge_assistant.device import loaded as loaded_module
from edge_assistant.device import prepare as module
from edge_assistant.device.bench import bench
from edge_assistant.device.cpu import Cpu, this_cpu
from edge_assistant.device.loaded import loaded
from edge_assistant.device.memory import resident
from edge_assistant.device.prepare import float32_warning, prepare, thread_counts, tune, warm
from edge_assistant.engine.prepacked import prepacked_folder
from edge_assistant.engine.tuning import Fingerprint, Tuning, read_tuning, save_tuning, tuning_path
from edge_assistant.errors import LoadMeasureError
from edge_assistant.text.chat import ChatModel

MODELS = Path(__file__).parents[2] / "models"
FOUND = Tuning(3, True, 64, None, {"2": 1.3}, 7.5, 20.1, ())
OLD_ARM = Cpu("aarch64", "0x41 0xd08", (), 4)


@pytest.fixture
def bundle() -> Bundle:
    return Bundle.open(MODELS / "home-mini")


def keep(bundle: Bundle, state: Path, tuning: Tuning = FOUND, changed: dict[str, str] | None = None) -> Path:
    path = tuning_path(state, bundle.manifest)
    here = Fingerprint.of(bundle.manifest, str(this_cpu()))
    save_tuning(path, replace(here, **(changed or {})), tuning)
    return path


def prepared(bundle: Bundle, state: Path, settings: Settings | None = None) -> module.Prepared:
    return prepare(bundle, settings or Settings(), state)


def test_without_anything_the_settings_hold(bundle, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert prepared(bundle, tmp_path) == module.Prepared(Settings().engine, None)
    assert not caplog.messages


def test_what_was_tuned_is_used_and_said_in_one_line(bundle, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    keep(bundle, tmp_path)
    engine = prepared(bundle, tmp_path).settings
    assert (engine.threads, engine.spinning, engine.prefill_chunk) == (3, True, 64)
    assert engine == Settings().engine.model_copy(update={"threads": 3, "spinning": True, "prefill_chunk": 64})
    assert caplog.messages == ["tuned for this device: threads = 3, spinning = True, prefill_chunk = 64"]


def test_what_a_row_costs_is_known_from_the_start(bundle, tmp_path):
    keep(bundle, tmp_path, replace(FOUND, batch_cost={"2": 1.3, "4": 2.2, "8": 4.5}))
    found = prepared(bundle, tmp_path)
    assert found.row_cost == pytest.approx((0.3 + 0.4 + 0.5) / 3)
    with ChatModel.load(bundle, EngineSettings(threads=1), row_cost=found.row_cost) as model:
        assert model._engine._speculator.pace.row_cost == found.row_cost
    keep(bundle, tmp_path, replace(FOUND, batch_cost={"2": 0.9}))
    assert prepared(bundle, tmp_path).row_cost == 0
    keep(bundle, tmp_path, replace(FOUND, batch_cost={}))
    assert prepared(bundle, tmp_path).row_cost is None


def test_the_configuration_goes_before_it(bundle, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    keep(bundle, tmp_path)
    file = tmp_path / "c.toml"
    file.write_text("[engine]\nthreads = 0\n", encoding="utf-8")
    monkeypatch.setenv("EDGE_ASSISTANT_ENGINE__SPINNING", "false")
    engine = prepared(bundle, tmp_path, Settings.load(file)).settings
    assert (engine.threads, engine.spinning, engine.prefill_chunk) == (0, False, 64)
    assert caplog.messages == [
        "tuned for this device: prefill_chunk = 64 (engine.threads, engine.spinning as the configuration says)"
    ]


@pytest.mark.parametrize("changed", [{"cpu": "another"}, {"onnxruntime": "1.0"}, {"bundle": "0" * 64}], ids=str)
def test_what_is_stale_is_left_out_with_a_warning(bundle, tmp_path, caplog, changed):
    keep(bundle, tmp_path, changed=changed)
    assert prepared(bundle, tmp_path).settings == Settings().engine
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "run `edge-assistant tune` again" in record.getMessage()


def test_so_is_what_is_broken(bundle, tmp_path, caplog):
    keep(bundle, tmp_path).write_bytes(b"\0")
    assert prepared(bundle, tmp_path).settings == Settings().engine
    assert "run `edge-assistant tune` again" in caplog.text


def test_prepacked_weights_are_found_and_memory_is_told(bundle, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    report = warm(bundle, EngineSettings(threads=1), tmp_path)
    folder = Path(report["saved"])
    assert prepared(bundle, tmp_path).prepacked == folder
    assert caplog.messages == [f"prepacked weights are mapped from {folder}"]
    assert report["bytes"] == sum(file.stat().st_size for file in folder.iterdir())
    assert report["anonymous_bytes_without"] > 0
    assert report["file_bytes_with"] > 0
    assert prepared(bundle, tmp_path, Settings(engine=EngineSettings(prepacked=False))).prepacked is None


def test_what_was_found_not_to_pay_is_not_mapped(bundle, tmp_path):
    warm(bundle, EngineSettings(threads=1), tmp_path)
    keep(bundle, tmp_path, replace(FOUND, prepacked=False))
    assert prepared(bundle, tmp_path).prepacked is None


def test_broken_prepacked_weights_are_left_out_with_a_warning(bundle, tmp_path, caplog):
    folder = Path(warm(bundle, EngineSettings(threads=1), tmp_path)["saved"])
    (folder / "model.onnx.data").write_bytes(b"")
    assert prepared(bundle, tmp_path).prepacked is None
    assert "run `edge-assistant warm` again" in caplog.text


def test_those_of_another_processor_are_not_looked_at(bundle, tmp_path, caplog, monkeypatch):
    warm(bundle, EngineSettings(threads=1), tmp_path)
    monkeypatch.setattr(module, "this_cpu", lambda: replace(this_cpu(), model="another"))
    assert prepared(bundle, tmp_path).prepacked is None
    assert not caplog.messages


def test_tune_keeps_what_it_returns(bundle, tmp_path):
    said: list[str] = []
    report = tune(bundle, EngineSettings(), tmp_path, said.append)
    fingerprint = Fingerprint.of(bundle.manifest, str(this_cpu()))
    kept = read_tuning(tuning_path(tmp_path, bundle.manifest), fingerprint)
    assert kept is not None
    assert {name: report[name] for name in ("threads", "spinning", "prefill_chunk", "prepacked")} == {
        name: getattr(kept, name) for name in ("threads", "spinning", "prefill_chunk", "prepacked")
    }
    assert report["batch_cost"].keys() == {"2", "4", "8"}
    assert prepared(bundle, tmp_path).settings.threads == kept.threads
    assert said[0] == "writing prepacked weights"
    written = prepacked_folder(tmp_path, bundle.manifest, fingerprint)
    assert written.is_dir() is bool(kept.prepacked)


@pytest.mark.parametrize(
    ("cpu", "warned"), [(OLD_ARM, True), (replace(OLD_ARM, features=("asimddp",)), False)], ids=str
)
def test_a_processor_that_would_compute_in_float32_is_told_so_once(bundle, tmp_path, caplog, monkeypatch, cpu, warned):
    monkeypatch.setattr(module, "this_cpu", lambda: cpu)
    prepared(bundle, tmp_path)
    assert ["lacks asimddp" in message for message in caplog.messages] == [True] * warned


@pytest.mark.parametrize("recipe", [{"bits": 32}, {"bits": 4, "accuracy_level": 0}], ids=str)
def test_what_is_float32_on_purpose_is_no_surprise(tiny_bundle, recipe):
    assert float32_warning(tiny_bundle(**recipe), OLD_ARM) is None


@pytest.mark.parametrize(("cores", "counts"), [(1, [1]), (2, [2, 1]), (4, [4, 2, 3]), (8, [8, 4, 7, 6])])
def test_all_cores_come_first_and_no_number_twice(cores, counts):
    assert thread_counts(cores) == counts


def test_memory_is_that_of_a_fresh_process(bundle):
    ballast = bytearray(64 << 20)
    held = loaded(bundle, EngineSettings(threads=1), None)
    assert 0 < held.anonymous < resident().anonymous - len(ballast) // 2


def test_whatever_answers_loads_them(bundle, tmp_path, caplog):
    """A folder that cannot be loaded leaves a trace of having been tried."""
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    settings = EngineSettings(threads=1)
    with ChatModel.load(bundle, settings, prepacked=tmp_path):
        assert f"{tmp_path / 'model.onnx'} on CPUExecutionProvider is not used" in caplog.text
    caplog.clear()
    bench(bundle, module.Prepared(settings, tmp_path), 8, 4)
    assert f"{tmp_path / 'model.onnx'} on CPUExecutionProvider is not used" in caplog.text


def test_a_load_that_does_not_come_about_is_named(bundle, tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(LoadMeasureError, match=r"loading home-mini takes .* does not fit its manifest"):
        loaded(Bundle(tmp_path, bundle.manifest), EngineSettings(threads=1), None)
    monkeypatch.setattr(loaded_module, "_load", killed)
    with pytest.raises(LoadMeasureError, match="for want of memory"):
        loaded(bundle, EngineSettings(threads=1), None)


def killed(*_: object) -> None:
    """End as the system ends a process for which it has no memory."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("by_warm", [False, True])
def test_tune_that_is_interrupted_leaves_no_weights_that_were_not_found_to_pay(bundle, tmp_path, monkeypatch, by_warm):
    folder = prepacked_folder(tmp_path, bundle.manifest, Fingerprint.of(bundle.manifest, str(this_cpu())))
    if by_warm:
        warm(bundle, EngineSettings(threads=1), tmp_path)
    monkeypatch.setattr(module.Tuner, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(bundle, EngineSettings(threads=1), tmp_path, lambda _: None)
    assert folder.is_dir() is by_warm
    assert not tuning_path(tmp_path, bundle.manifest).exists()


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt
