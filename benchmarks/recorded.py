"""An engine that records what its answers run, by a clock that goes on by what a run costs another model.

How many tokens an engine guesses depends on what it finds a run of several to cost. With a clock that a run moves on by
its cost at another model's shape, the engine paces its guesses as it would there, while the answers are those of the
model at hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast
from unittest.mock import patch

from edge_assistant.engine import Engine, Generation, SamplingParams
from edge_assistant.engine.session import Session
from edge_assistant.engine.speculate import Speculator

Cost = Callable[[int, int], float]
"""Seconds of a run by its tokens, and by how many of their logits are wanted."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the graph: its tokens, and how many of the last of them have their logits taken."""

    tokens: int
    logits: int


class RecordingEngine(Engine):
    """Keeps what was asked of it last, what it wrote, and the speculator as it was before."""

    prompt: Sequence[int]
    params: SamplingParams
    written: list[int]
    before: Speculator

    @property
    def speculator(self) -> Speculator:
        """What guesses, and counts."""
        return self._speculator

    def generate(self, prompt: Sequence[int], params: SamplingParams, *rest: Any, **more: Any) -> Generation:
        """Return the answer as `Engine` does."""
        self.prompt, self.params, self.written = prompt, params, []
        self.before = deepcopy(self._speculator)
        return cast("Generation", _Copied(super().generate(prompt, params, *rest, **more), self.written))


class _Copied:
    """A generation whose tokens are put into a list as well when they are fetched."""

    def __init__(self, generation: Generation, written: list[int]) -> None:
        self._generation, self._written = generation, written

    def __iter__(self) -> Iterator[int]:
        for token in self._generation:
            self._written.append(token)
            yield token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generation, name)


@contextmanager
def recorded_runs(cost: Cost) -> Iterator[list[Run]]:
    """Give the list of runs, to which each is added when it is done, and let the engine's clock tell their costs."""
    runs: list[Run] = []
    now = 0.0

    def ran(run: Run) -> None:
        nonlocal now
        runs.append(run)
        now += cost(run.tokens, run.logits)

    one, several = Session.run, Session.run_rows

    def run(session: Session, ids: Sequence[int]) -> Any:
        logits = one(session, ids)
        ran(Run(len(ids), 1))
        return logits

    def run_rows(session: Session, ids: Sequence[int], rows: int) -> Any:
        logits = several(session, ids, rows)
        ran(Run(len(ids), rows))
        return logits

    with ExitStack() as stack:
        stack.enter_context(patch.object(Session, "run", run))
        stack.enter_context(patch.object(Session, "run_rows", run_rows))
        for name, module in list(sys.modules.items()):
            if name.startswith("edge_assistant.engine.") and hasattr(module, "perf_counter"):
                stack.enter_context(patch.object(module, "perf_counter", lambda: now))
        yield runs
