"""What the scheduler's tests share.

A `Machine` stands between the scheduler and the model: it notes every run, and where it is held, lets them through one
by one. So what is submitted while a run is held is known to come before the next.
"""

from __future__ import annotations

import threading

import numpy as np

from edge_assistant.config import EngineSettings
from edge_assistant.engine import Claim, Engine, SamplingParams
from edge_assistant.engine.kv_cache import KvCache

IDS = np.random.default_rng(2).integers(14, 270, 200)
PROMPTS = [list(IDS[:40]), list(IDS[40:60]), list(IDS[60:145]), list(IDS[150:153])]
"""No two of them begin alike."""
GREEDY = SamplingParams(max_tokens=30)
LIVELY = SamplingParams(max_tokens=30, temperature=1.2, top_k=50, repetition_penalty=1.1)
VOICE, BATCH = Claim(priority="voice"), Claim(priority="batch")
SECONDS = 20


class Machine:
    """Runs of the model, noted: the tokens that each sequence read, [n] of one or one each of several."""

    def __init__(self) -> None:
        self.runs: list[list[list[int]]] = []
        self.caches: list[KvCache | None] = []
        """Where a run was of one sequence alone."""
        self._held = False
        self._here, self._go = threading.Semaphore(0), threading.Semaphore(0)

    def passes(self, tokens: list[list[int]], cache: KvCache | None = None) -> None:
        """Called by a run: note it, and wait while held."""
        self.runs.append(tokens)
        self.caches.append(cache)
        if self._held:
            self._here.release()
            assert self._go.acquire(timeout=SECONDS)

    def hold(self) -> None:
        """Hold the next run."""
        self._held = True

    def held(self) -> None:
        """Wait until a run is held."""
        assert self._here.acquire(timeout=SECONDS)

    def step(self) -> None:
        """Let the run go that is held, and wait for the next."""
        self._go.release()
        self.held()

    def let_go(self) -> None:
        """Hold no more."""
        self._held = False
        self._go.release()

    def rows(self) -> int:
        """Return how many tokens were run."""
        return sum(len(ids) for run in self.runs for ids in run)

    def reads(self) -> list[int]:
        """Return the runs that read the beginning of one of the prompts, by the prompt's number, in their order."""
        starts = [prompt[:16] for prompt in PROMPTS]
        return [starts.index(run[0]) for run in self.runs if run[0] in starts]


def settings_of(**settings) -> EngineSettings:
    return EngineSettings(**{"threads": 1, "prefill_chunk": 16, "guesses": 0, "sequences": 1} | settings)


def fresh(bundle, prompt, params=GREEDY) -> list[int]:
    """Return what an engine of its own answers."""
    with Engine.load(bundle, settings_of()) as engine:
        return list(engine.generate(prompt, params))


class Clock:
    """A clock that is put forward by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def answers_of(engine: Engine, machine: Machine, prompts: list[list[int]], params: SamplingParams) -> list[list[int]]:
    """Return the answers to prompts that were all asked before the first was computed."""
    machine.hold()
    generations = [engine.generate(prompt, params) for prompt in prompts]
    machine.held()
    machine.let_go()
    return [list(generation) for generation in generations]


def with_clock(engine: Engine) -> Clock:
    engine._scheduler._clock = clock = Clock()
    return clock
