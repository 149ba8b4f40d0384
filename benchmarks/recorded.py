"""An engine whose clock goes on by what a run costs another model, and that records what its answers run.

How many tokens an engine guesses depends on what it finds a run of several to cost. With a clock that a run moves on by
its cost at another model's shape, the engine paces its guesses as it would there, while the answers are those of the
model at hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from edge_assistant.engine import Adapter, Engine, Generation, SamplingParams
from edge_assistant.engine.session import Session, Together

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


@dataclass(slots=True)
class Recording:
    """The runs of single sequences up to now, and the engine's clock."""

    runs: list[Run] = field(default_factory=list)
    seconds: float = 0.0
    """Of all runs, those of several sequences at once too."""


@contextmanager
def recorded_runs(cost: Cost, draft: str = "", share: float = 0.0) -> Iterator[Recording]:
    """Give the recording, to which each run is added when it is done, and let the engine's clock tell their costs.

    Runs of the model that is called `draft` cost that share, and are not in the list.
    """
    recording = Recording()

    def ran(session: Session, run: Run) -> None:
        drafts = session.manifest.name == draft
        recording.seconds += cost(len(run.ids), run.logits) * (share if drafts else 1.0)
        if not drafts:
            recording.runs.append(run)

    one, several, together = Session.run, Session.run_rows, Together.run

    def run(session: Session, ids: Sequence[int]) -> Any:
        logits = one(session, ids)
        ran(session, Run(tuple(ids), 1))
        return logits

    def run_rows(session: Session, ids: Sequence[int], rows: int) -> Any:
        logits = several(session, ids, rows)
        ran(session, Run(tuple(ids), rows))
        return logits

    def run_together(batch: Together, tokens: Mapping[int, int], adapter: Adapter | None = None) -> Any:
        logits = together(batch, tokens, adapter)
        rows = max(tokens) - min(tokens) + 1  # an idle sequence between two others is run with them
        recording.seconds += cost(rows, rows)
        return logits

    with ExitStack() as stack:
        stack.enter_context(patch.object(Together, "run", run_together))
        stack.enter_context(patch.object(Session, "run", run))
        stack.enter_context(patch.object(Session, "run_rows", run_rows))
        for name, module in list(sys.modules.items()):
            if name.startswith("edge_assistant.engine.") and hasattr(module, "perf_counter"):
                stack.enter_context(patch.object(module, "perf_counter", lambda: recording.seconds))
        yield recording
