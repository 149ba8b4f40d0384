from __future__ import annotations

from pathlib import Path

import pytest

from edge_assistant.config import Settings, state_directory
from edge_assistant.errors import HomeDirectoryError


def test_state_lies_where_systemd_says_else_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert state_directory() == tmp_path / "state" / "edge-assistant"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/edge-assistant:/var/lib/other")
    assert state_directory() == Path("/var/lib/edge-assistant")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 2)  # whom no list of users has
    with pytest.raises(HomeDirectoryError, match="XDG_STATE_HOME"):
        state_directory()
    with pytest.raises(HomeDirectoryError, match="XDG_CONFIG_HOME"):
        Settings.load()
