"""A folder in onnxruntime-genai, as a worker, in an environment that has it."""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime_genai as genai
from worker import serve


class GenaiRunner:
    """Its `Generator`, which keeps one context."""

    runtime = f"onnxruntime-genai {genai.__version__}"

    def __init__(self, path: str, context: int, threads: int, spinning: bool, sequences: int = 1) -> None:
        """Let each of some sequences be of up to `context` tokens."""
        config = genai.Config(path)
        options = {"intra_op_num_threads": threads, "session.intra_op.allow_spinning": str(int(spinning))}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = genai.Model(config)
        self._context, self._sequences = context, sequences
        described = json.loads((Path(path) / "genai_config.json").read_bytes())
        self.vocab_size: int = described["model"]["vocab_size"]
        self._generator: genai.Generator | None = None
        self._held: list[int] = []

    def answer(self, prompt: list[int], count: int) -> dict[str, Any]:
        """Return the seconds to the first token, and those of `count` more; it keeps what the last prompt shares."""
        started = perf_counter()
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt[:-1], self._held, strict=False)))
        if self._generator is None or not shared:
            self._generator = None  # its cache goes before the next is allocated
            self._generator = self._begin(1)
        else:
            self._generator.rewind_to(shared)
        self._generator.append_tokens(np.array([prompt[shared:]], np.int32))
        self._generator.generate_next_token()
        first = perf_counter()
        for _ in range(count):
            self._generator.generate_next_token()
        ended = perf_counter()
        self._held = prompt
        return {"first_s": first - started, "rest_s": ended - first}

    def together(self, prompts: list[list[int]], count: int) -> dict[str, Any]:
        """Return the seconds until `count` tokens are written behind each prompt, and those to the first of each."""
        started = perf_counter()
        generator = self._begin(len(prompts))
        generator.append_tokens(np.array(prompts, np.int32))
        generator.generate_next_token()
        first = perf_counter() - started
        for _ in range(count - 1):
            generator.generate_next_token()
        return {"seconds": perf_counter() - started, "first_s": [first] * len(prompts)}

    def _begin(self, sequences: int) -> genai.Generator:
        parameters = genai.GeneratorParams(self._model)
        # As short as it is long: no token ends an answer before its time.
        parameters.set_search_options(max_length=self._context, min_length=self._context, batch_size=sequences)
        return genai.Generator(self._model, parameters)


if __name__ == "__main__":
    serve(GenaiRunner)
