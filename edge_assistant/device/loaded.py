"""What loading a bundle takes, seen from a process that did nothing else."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING

from edge_assistant.device.memory import Resident, resident
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.session import Session
from edge_assistant.errors import EdgeAssistantError, LoadMeasureError

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
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        try:
            held = pool.submit(_load, bundle, settings, prepacked).result()
        except BrokenProcessPool as error:
            problem = "the system has ended the process that loaded it, most likely for want of memory"
            raise LoadMeasureError(bundle.manifest.name, problem) from error
    if isinstance(held, str):
        raise LoadMeasureError(bundle.manifest.name, held)
    return held


def _load(bundle: Bundle, settings: EngineSettings, prepacked: Path | None) -> Resident | str:
    """Return what is held, or in words why it cannot be loaded: an error that builds its message leaves no process."""
    try:
        session = Session(bundle, KvCache(bundle.manifest, _TOKENS), settings, prepacked)
    except EdgeAssistantError as error:
        return str(error)
    session.run([0] * _TOKENS)
    return resident()
