from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_assistant.config.variables import ENV_PREFIX


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes a file of settings."""

    def written(text: str) -> Path:
        file = tmp_path / "c.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return written
