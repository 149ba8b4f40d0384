"""The steps of a bundle's graph, as a worker: what a run of several tokens takes, beside one of one."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from worker import serve

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.session import Session


class SessionRunner:
    """One sequence, whose end is run again and again."""

    runtime = f"onnxruntime {version('onnxruntime')}"

    def __init__(self, path: str, context: int, threads: int, spinning: bool) -> None:
        """Give it a cache of `context` tokens."""
        bundle = Bundle.open(Path(path))
        self.vocab_size = bundle.manifest.architecture.vocab_size
        settings = EngineSettings(threads=threads, spinning=spinning)
        self._session = Session(bundle, KvCache(bundle.manifest, context), settings)

    def rows(self, context: int, rows: list[int], repeats: int) -> dict[str, Any]:
        """Return the seconds of each of some steps by how many tokens they run: the last one's logits, and all."""
        session = self._session
        session.cache.rewind(0)
        session.run([*range(context)])
        last: dict[int, list[float]] = {number: [] for number in rows}
        everyone: dict[int, list[float]] = {number: [] for number in rows}
        for _ in range(repeats):
            for number in rows:
                for found, run in ((last, session.run), (everyone, self._run_all)):
                    started = perf_counter()
                    run([*range(number)])
                    found[number].append(perf_counter() - started)
                    session.cache.rewind(context)
        return {"last": last, "all": everyone}

    def _run_all(self, ids: list[int]) -> None:
        if len(ids) > 1:
            self._session.run_rows(ids, len(ids))
        else:
            self._session.run(ids)  # as the engine has it


if __name__ == "__main__":
    serve(SessionRunner)
