"""What a process holds, and what loading a bundle adds to it.

Anonymous memory is the process's own and must fit the board. Memory of mapped files the system can take back, and read
again from the file.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.session import Session

if TYPE_CHECKING:
    from edge_assistant.bundle import Bundle
    from edge_assistant.config import EngineSettings

_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Resident:
    """Resident bytes of a process."""

    anonymous: int
    file: int


def resident(pid: int | str = "self") -> Resident:
    """Return what a process holds now, from /proc/PID/status."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines())
    anonymous, file = (int(fields[name].split()[0]) << 10 for name in ("RssAnon", "RssFile"))
    return Resident(anonymous, file)


def loaded(bundle: Bundle, settings: EngineSettings, prepacked: Path | None) -> Resident:
    """Return what a fresh process holds once it has loaded a bundle with a small cache and run a step.

    A process that has once held a model's memory does not show how little the next load takes: hence the fresh one.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_load, bundle, settings, prepacked).result()


def _load(bundle: Bundle, settings: EngineSettings, prepacked: Path | None) -> Resident:
    session = Session(bundle, KvCache(bundle.manifest, _TOKENS), settings, prepacked)
    session.run([0] * _TOKENS)
    return resident()
