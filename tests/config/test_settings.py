from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_assistant.config import EngineSettings, Settings
from edge_assistant.errors import ConfigFileError, UnknownKeyError


def test_environment_goes_before_file_and_file_before_default(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write("[engine]\nthreads = 2\nprefill_chunk = 64\n")
    monkeypatch.setenv("EDGE_ASSISTANT_ENGINE__THREADS", "3")
    settings = Settings.load(file)
    assert (settings.engine.threads, settings.engine.prefill_chunk, settings.engine.spinning) == (3, 64, False)
    assert settings.origin("engine", "threads") == "EDGE_ASSISTANT_ENGINE__THREADS"
    assert settings.origin("engine", "prefill_chunk") == str(file)
    assert settings.origin("engine", "spinning") == "default"


def test_the_file_of_the_user_is_found(tmp_path: Path) -> None:
    file = tmp_path / "config" / "edge-assistant" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('[assistant]\nnode = "attic"\n', encoding="utf-8")
    settings = Settings.load()
    assert (settings.assistant.node, settings.source) == ("attic", file)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match="No such file"):
        Settings.load(tmp_path / "missing.toml")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().engine.threads = 4  # type: ignore[misc]


def test_a_section_from_the_environment_is_known_as_the_origin_of_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_ASSISTANT_ENGINE", '{"threads": 3}')
    settings = Settings.load()
    assert settings.engine.threads == 3
    assert settings.origin("engine", "threads") == "EDGE_ASSISTANT_ENGINE"
    assert settings.origin("engine", "queue") == "default"


def test_a_section_that_the_environment_leaves_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_ASSISTANT_ENGINE", "null")
    settings = Settings.load()
    assert settings.engine == EngineSettings()
    assert settings.origin("engine", "threads") == "default"


def test_a_list_and_a_table_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_ASSISTANT_MODEL__FOLDERS", '["~/models"]')
    monkeypatch.setenv("EDGE_ASSISTANT_HOME__DEVICES", '{"hall": {"lamp": {"domain": "light"}}}')
    monkeypatch.setenv("EDGE_ASSISTANT_MODEL__ADAPTERS", '{"kitchen": "~/kitchen.npz"}')
    settings = Settings.load()
    assert settings.model.folders == (Path.home() / "models",)
    assert settings.model.adapters == {"kitchen": Path.home() / "kitchen.npz"}
    assert settings.home.devices["hall"]["lamp"].domain == "light"


def test_the_table_of_the_hardware_is_no_setting(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file = write('[board]\ntitle = "x"\n[engine]\nthreads = 2\n')
    assert Settings.load(file).engine.threads == 2
    monkeypatch.setenv("EDGE_ASSISTANT_BOARD__TITLE", "x")
    with pytest.raises(UnknownKeyError, match=r"no setting board\.title"):
        Settings.load(file)


def test_models_are_looked_for_in_the_settings_then_the_state_then_the_clone(
    tmp_path: Path, write: Callable[[str], Path]
) -> None:
    settings = Settings.load(write(f'[model]\nfolders = ["{tmp_path}"]'))
    clone = Path(__file__).parents[2] / "models"
    assert settings.model_folders == (tmp_path, tmp_path / "state" / "edge-assistant" / "models", clone)
