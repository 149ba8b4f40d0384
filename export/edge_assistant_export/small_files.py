"""Reads the small files that lie beside a checkpoint's weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from edge_assistant.errors import CheckpointError


def read_json(path: Path) -> Mapping[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        CheckpointError: It cannot be read, or holds something else.
    """
    content = _load(path)
    if not isinstance(content, dict):
        raise CheckpointError(path, "it holds no object; download it again")
    return content


def read_json_list(path: Path) -> list[Mapping[str, Any]]:
    """Return the objects that a JSON file lists.

    Raises:
        CheckpointError: It cannot be read, or holds something else.
    """
    content = _load(path)
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise CheckpointError(path, "it holds no list of objects; download it again")
    return content


def read_text(path: Path) -> str:
    """Return what a file of text says.

    Raises:
        CheckpointError: It cannot be read, or is not in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointError(path, f"it cannot be read ({error.strerror}): name another file") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(path, f"it is no text in UTF-8 ({error}): save it as such") from error


def read_licence(folder: Path) -> str | None:
    """Return what the model card's head says; None where there is no card or it says nothing."""
    path = folder / "README.md"
    card = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if not card.startswith("---"):
        return None
    try:
        head = yaml.safe_load(card.split("---", 2)[1])
    except (yaml.YAMLError, ValueError, RecursionError):  # a date that no calendar has, brackets without end
        return None
    if not isinstance(head, dict):
        return None
    licence = head.get("license_name") or head.get("license")
    return str(licence) if licence else None


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(path, f"it is no JSON ({error}); download it again") from error
