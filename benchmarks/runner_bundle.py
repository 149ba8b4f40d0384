"""A bundle in this project's engine, as a worker."""

from __future__ import annotations

import threading
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from worker import serve

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Claim, Engine, Keep, SamplingParams


class BundleRunner:
    """An engine without guesses: random tokens have none that could come true."""

    runtime = f"onnxruntime {version('onnxruntime')}"

    def __init__(
        self,
        path: str,
        context: int,
        threads: int,
        spinning: bool,
        sequences: int = 1,
        prefix: int = 0,
        prefixes: str | None = None,
        prepacked: str | None = None,
    ) -> None:
        """Give each of some sequences a cache of `context` tokens, and keep two beginnings of `prefix` tokens."""
        self._bundle = Bundle.open(Path(path))
        self.vocab_size = self._bundle.manifest.architecture.vocab_size
        size = self._bundle.manifest.cache_size.of
        self._settings = EngineSettings(
            threads=threads,
            spinning=spinning,
            sequences=sequences,
            queue=max(16, sequences),
            kv_cache_bytes=sequences * size(context),
            prefix_bytes=2 * size(prefix),
            prefix_disk_bytes=2 * size(prefix),
            guesses=0,
        )
        self._prefixes = Path(prefixes) if prefixes else None
        self._prepacked = Path(prepacked) if prepacked else None
        self._engine = self._load()

    def _load(self) -> Engine:
        return Engine.load(self._bundle, self._settings, self._prefixes, prepacked=self._prepacked)

    def reload(self) -> dict[str, Any]:
        """Load the engine anew, as after a restart: of the beginnings only those on disk are left."""
        self._engine.close()
        self._engine = self._load()
        return {}

    def answer(self, prompt: list[int], count: int, keep: int = 0) -> dict[str, Any]:
        """Return the seconds to the first token, and those of `count` more; `keep` tokens will come again."""
        params = SamplingParams(max_tokens=count + 1)
        started = perf_counter()
        generation = self._engine.generate(prompt, params, keep=Keep(keep, lasting=keep > 0))
        next(generation)
        first = perf_counter()
        written = sum(1 for _ in generation)
        assert written == count, "the answer was cut short"
        return {"first_s": first - started, "rest_s": perf_counter() - first}

    def together(self, prompts: list[list[int]], count: int) -> dict[str, Any]:
        """Return the seconds until as many callers have `count` tokens each, and those to the first token of each."""
        firsts: list[float] = []
        written: list[int] = []

        def ask(number: int) -> None:
            claim = Claim(str(number))
            generation = self._engine.generate(prompts[number], SamplingParams(max_tokens=count), claim=claim)
            next(generation)
            firsts.append(perf_counter() - started)
            written.append(1 + sum(1 for _ in generation))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(prompts))]
        started = perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = perf_counter() - started
        assert written == [count] * len(prompts), "an answer was cut short"
        return {"seconds": seconds, "first_s": firsts, "batches": self._engine.metrics().batches}


if __name__ == "__main__":
    serve(BundleRunner)
