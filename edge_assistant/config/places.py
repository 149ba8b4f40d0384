"""Where things lie: the file of the settings, the state, the models of a clone."""

from __future__ import annotations

import os
from pathlib import Path

from edge_assistant.errors import HomeDirectoryError


def config_files() -> tuple[Path, ...]:
    """Return the files that are read where none is named, the first that exists wins; HomeDirectoryError."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or _home("XDG_CONFIG_HOME") / ".config")
    return home / "edge-assistant" / "config.toml", Path("/etc/edge-assistant/config.toml")


def state_directory() -> Path:
    """Return the folder for what must survive a restart; it need not exist yet. Or HomeDirectoryError."""
    systemd = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if systemd:
        return Path(systemd)
    return Path(os.environ.get("XDG_STATE_HOME") or _home("XDG_STATE_HOME") / ".local" / "state") / "edge-assistant"


def clone_models() -> tuple[Path, ...]:
    """Return the models/ of the clone this package runs from, if it does run from one."""
    root = Path(__file__).parents[2]
    return (root / "models",) if (root / "firmware_configs").is_dir() and (root / "models").is_dir() else ()


def _home(instead: str) -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise HomeDirectoryError(instead) from error
