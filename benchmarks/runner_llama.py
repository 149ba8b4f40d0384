"""A GGUF file in llama.cpp, as a worker: mapped; how its threads wait is its environment's to say."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

import llama_cpp
from llama_cpp import _internals as internals
from worker import serve

_BATCH = 512
"""Tokens of a run, as llama.cpp has it by default."""


class _Row(NamedTuple):
    """A token of a batch."""

    sequences: tuple[int, ...]
    position: int
    token: int
    is_last: bool = False
    """What follows it is wanted."""


class LlamaRunner:
    """llama-cpp-python's class `Llama`; below it, for several sequences at once, llama.cpp's own batches."""

    runtime = f"llama-cpp-python {llama_cpp.__version__}"

    def __init__(
        self,
        path: str,
        context: int,
        threads: int,
        sequences: int = 1,
        guessing: bool = False,
        copying: bool = False,
    ) -> None:
        """Give each of some sequences a cache of `context` tokens; `guessing` as its prompt lookup has it.

        With `copying` what several prompts begin with is read once, for all of them.
        """
        self._copying = copying
        self._llama = llama_cpp.Llama(
            path,
            n_ctx=context,
            n_batch=_BATCH,
            n_threads=threads,
            n_threads_batch=threads,
            logits_all=guessing,
            verbose=False,
        )
        self.vocab_size = self._llama.n_vocab()
        self._several = self._context(context, threads, sequences) if sequences > 1 else None

    def _context(self, context: int, threads: int, sequences: int) -> internals.LlamaContext:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max, params.kv_unified = sequences * context, sequences, self._copying
        params.n_batch = params.n_ubatch = _BATCH
        params.n_threads = params.n_threads_batch = threads
        return internals.LlamaContext(model=self._llama._model, params=params, verbose=False)  # noqa: SLF001

    def answer(self, prompt: list[int], count: int) -> dict[str, Any]:
        """Return the seconds to the first token, and those of `count` more; it keeps what the last prompt shares."""
        started = perf_counter()
        tokens = self._llama.generate(prompt, temp=0.0)
        next(tokens)
        first = perf_counter()
        for _ in range(count):
            next(tokens)
        return {"first_s": first - started, "rest_s": perf_counter() - first}

    def rows(self, context: int, rows: list[int], repeats: int) -> dict[str, Any]:
        """Return the seconds of each of some steps by how many tokens they run; with a lookup it takes all logits."""
        self._llama.reset()
        self._llama.eval([*range(context)])
        seconds: dict[int, list[float]] = {number: [] for number in rows}
        for _ in range(repeats):
            for number in rows:
                self._llama.n_tokens = context
                started = perf_counter()
                self._llama.eval([*range(number)])
                seconds[number].append(perf_counter() - started)
        return {"last": seconds, "all": seconds}

    def together(self, prompts: list[list[int]], count: int) -> dict[str, Any]:
        """Return the seconds until `count` tokens are written behind each prompt, and those to the first of each."""
        assert self._several is not None, "it was loaded for one sequence"
        sampler = internals.LlamaSampler()
        sampler.add_greedy()
        self._several.kv_cache_clear()
        started = perf_counter()
        shared = _shared(prompts) if self._copying else 0
        everyone = tuple(range(len(prompts)))
        rows = [_Row(everyone, at, token) for at, token in enumerate(prompts[0][:shared])]
        tokens = self._step(sampler, [prompt[shared:] for prompt in prompts], shared, rows)
        first = perf_counter() - started
        for number in range(count - 1):
            tokens = self._step(sampler, [[token] for token in tokens], len(prompts[0]) + number)
        return {"seconds": perf_counter() - started, "first_s": [first] * len(prompts)}

    def _step(
        self, sampler: internals.LlamaSampler, parts: list[list[int]], position: int, before: Sequence[_Row] = ()
    ) -> list[int]:
        """Run some tokens of each sequence in batches, and what comes before them; return what follows in each."""
        rows = [
            *before,
            *(
                _Row((sequence,), position + at, token, at == len(part) - 1)
                for sequence, part in enumerate(parts)
                for at, token in enumerate(part)
            ),
        ]
        drawn: list[int] = []
        for start in range(0, len(rows), _BATCH):
            drawn += self._run(sampler, rows[start : start + _BATCH])
        return drawn

    def _run(self, sampler: internals.LlamaSampler, rows: Sequence[_Row]) -> list[int]:
        """Run a batch; return what follows the tokens that are last."""
        held = internals.LlamaBatch(n_tokens=len(rows), embd=0, n_seq_max=max(map(_width, rows)), verbose=False)
        batch = held.batch
        for at, row in enumerate(rows):
            batch.token[at], batch.pos[at], batch.logits[at] = row.token, row.position, row.is_last
            batch.n_seq_id[at] = len(row.sequences)
            for number, sequence in enumerate(row.sequences):
                batch.seq_id[at][number] = sequence
        batch.n_tokens = len(rows)
        self._several.decode(held)
        return [sampler.sample(self._several, at) for at, row in enumerate(rows) if row.is_last]


def _width(row: _Row) -> int:
    return len(row.sequences)


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with."""
    return next((at for at, tokens in enumerate(zip(*prompts, strict=False)) if len({*tokens}) > 1), 0)


if __name__ == "__main__":
    serve(LlamaRunner)
