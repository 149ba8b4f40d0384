from __future__ import annotations

from pathlib import Path

import pytest

from edge_assistant.config import state_directory


def test_state_lies_where_systemd_says_else_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert state_directory() == tmp_path / "state" / "edge-assistant"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/edge-assistant:/var/lib/other")
    assert state_directory() == Path("/var/lib/edge-assistant")
