"""An engine that records what its answers run, by a clock that goes on by what a run costs another model.

How many tokens an engine guesses depends on what it finds a run of several to cost. With a clock that a run moves on by
its cost at another model's shape, the engine paces its guesses as it would there, while the answers are those of the
model at hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from edge_assistant.engine import Engine, Generation, SamplingParams
from edge_assistant.engine.session import Session

Cost = Callable[[int, int], float]
"""Seconds of a run by its tokens, and by how many of their logits are wanted."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the graph: its tokens, and of how many of the last of them the logits are taken.

    What is guessed stands at its end: it takes the logits before each guess and those behind the last.
    """

    ids: tuple[int, ...]
    logits: int

    @property
    def guessed(self) -> tuple[int, ...]:
        """The guesses in it."""
        return self.ids[len(self.ids) - self.logits + 1 :]

    @property
    def due(self) -> int:
        """How many tokens it had to run."""
        return len(self.ids) - self.logits + 1


class RecordingEngine(Engine):
    """Keeps what was asked of it last, what it wrote, and what it remembered of its answers before."""

    prompt: Sequence[int]
    params: SamplingParams
    written: list[int]
    remembered: NDArray[np.int64]

    def generate(self, prompt: Sequence[int], params: SamplingParams, *rest: Any, **more: Any) -> Generation:
        """Return the answer as `Engine` does."""
        self.prompt, self.params, self.written = prompt, params, []
        self.remembered = self._speculator._answers  # noqa: SLF001 - it is replaced, never written to
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
def recorded_runs(cost: Cost, draft: str = "", share: float = 0.0) -> Iterator[list[Run]]:
    """Give the list of runs, to which each is added when it is done, and let the engine's clock tell their costs.

    Runs of the model that is called `draft` cost that share, and are not in the list.
    """
    runs: list[Run] = []
    now = 0.0

    def ran(session: Session, run: Run) -> None:
        nonlocal now
        drafts = session.manifest.name == draft
        now += cost(len(run.ids), run.logits) * (share if drafts else 1.0)
        if not drafts:
            runs.append(run)

    one, several = Session.run, Session.run_rows

    def run(session: Session, ids: Sequence[int]) -> Any:
        logits = one(session, ids)
        ran(session, Run(tuple(ids), 1))
        return logits

    def run_rows(session: Session, ids: Sequence[int], rows: int) -> Any:
        logits = several(session, ids, rows)
        ran(session, Run(tuple(ids), rows))
        return logits

    with ExitStack() as stack:
        stack.enter_context(patch.object(Session, "run", run))
        stack.enter_context(patch.object(Session, "run_rows", run_rows))
        for name, module in list(sys.modules.items()):
            if name.startswith("edge_assistant.engine.") and hasattr(module, "perf_counter"):
                stack.enter_context(patch.object(module, "perf_counter", lambda: now))
        yield runs
