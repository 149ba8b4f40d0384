"""What loading a bundle takes, seen from a process that did nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_assistant.device.memory import Resident, resident
from edge_assistant.engine.child import ChildError, in_a_child
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.session import Session
from edge_assistant.errors import LoadMeasureError

if TYPE_CHECKING:
    from pathlib import Path

    from edge_assistant.bundle import Bundle
    from edge_assistant.config import EngineSettings

_TOKENS = 8


def loaded(bundle: Bundle, settings: EngineSettings, prepacked: Path | None) -> Resident:
    """Return what a fresh process holds once it has loaded a bundle with a small cache and run a step.

    A process that has once held a model's memory does not show how little the next load takes: hence the fresh one.

    Raises:
        LoadMeasureError: It cannot be loaded there, or the system has ended the process.
    """
    try:
        return in_a_child(_load, bundle, settings, prepacked)
    except ChildError as error:
        ended = "the system has ended the process that loaded it, most likely for want of memory"
        raise LoadMeasureError(bundle.manifest.name, error.problem or ended) from error


def _load(bundle: Bundle, settings: EngineSettings, prepacked: Path | None) -> Resident:
    session = Session(bundle, KvCache(bundle.manifest, _TOKENS), settings, prepacked)
    session.run([0] * _TOKENS)
    return resident()
