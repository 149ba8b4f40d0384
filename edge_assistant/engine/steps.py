"""The steps of one round: which answers take theirs together, and what comes of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeVar

from edge_assistant.engine.answer import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_assistant.engine.request import Said
    from edge_assistant.engine.session import Together
    from edge_assistant.engine.slots import Held
    from edge_assistant.engine.speculate import Pace

T = TypeVar("T")

PATIENT_STEP: Final = 64
"""Tokens that are read at a time where nobody waits for them: a more urgent request waits for no more.

Longer steps are little faster, shorter ones read the weights of a large model too often.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a step for one request."""

    held: Held
    said: Sequence[Said] | Exception
    seconds: float
    """Its share of the time."""


class Steps:
    """Plans rounds and runs their steps."""

    def __init__(self, together: Together | None, pace: Pace) -> None:
        """`together` runs several sequences at once; None where that cannot be."""
        self._together, self._pace = together, pace
        self.batches: Counter[int] = Counter()
        """How many steps wrote so many answers."""
        self.chunks = 0
        """How many steps read."""

    def plan(self, turn: Sequence[Held]) -> tuple[list[list[Held]], list[Outcome]]:
        """Return the steps of a round, each with those it serves: all write, and the first that reads, reads.

        Beside them, what came of those for whom nothing can be planned.
        """
        reading = [held for held in turn if held.request.work.unread]
        alone: list[list[Held]] = []
        plain: list[Held] = []
        failed: list[Outcome] = []
        joining = [held for held in turn if self._may_step_together(held)]
        for held in turn:
            work = held.request.work
            if isinstance(work, Answer) and not work.unread:
                others = sum(_alike(held, other) for other in joining) - 1 if held in joining else 0
                started = perf_counter()
                tokens = _attempt(partial(work.plan, others))
                seconds = perf_counter() - started
                if isinstance(tokens, Exception):
                    failed.append(Outcome(held, tokens, seconds))
                    continue
                held.request.computed_s += seconds
                if tokens == 1 and held in joining:
                    plain.append(held)
                else:
                    alone.append([held])
        return [*alone, *self._groups(plain), *([held] for held in reading[:1])], failed

    def place(self, held: Held) -> Outcome:
        """Let a request go on in its slot."""
        failed = _attempt(partial(held.request.work.place, held.slot.session))
        return Outcome(held, failed or (), 0.0)

    def run(self, step: Sequence[Held]) -> list[Outcome]:
        """Run one step; what fails in it is the outcome of those whom it fails."""
        if len(step) > 1:
            return self._run_together(step)
        started = perf_counter()
        said = _attempt(partial(self._run_alone, step[0]))
        return [Outcome(step[0], said, perf_counter() - started)]

    def _groups(self, plain: Sequence[Held]) -> list[list[Held]]:
        """Return those that step together: a neighbour joins where it costs less so, with the idle slots between."""
        groups: list[list[Held]] = []
        for held in sorted(plain, key=lambda held: held.slot.number):
            last = groups[-1][-1] if groups else None
            if last and _alike(last, held) and self._pace.together(held.slot.number - last.slot.number):
                groups[-1].append(held)
            else:
                groups.append([held])
        return groups

    def _may_step_together(self, held: Held) -> bool:
        work = held.request.work
        return self._together is not None and isinstance(work, Answer) and not (work.unread or work.steps_alone)

    def _run_alone(self, held: Held) -> list[Said]:
        work = held.request.work
        if isinstance(work, Answer) and not work.unread:
            self.batches[1] += 1
            return work.step()
        self.chunks += 1
        return work.read(PATIENT_STEP if held.request.claim.priority == "batch" else None)

    def _run_together(self, step: Sequence[Held]) -> list[Outcome]:
        """Run a token of each in one step; `step` is in the order of the slots, and all of one adapter."""
        answers = [held.request.work for held in step if isinstance(held.request.work, Answer)]
        tokens = {held.slot.number: answer.due for held, answer in zip(step, answers, strict=True)}
        assert self._together is not None, "only then are there groups"  # noqa: S101
        self.batches[len(step)] += 1
        started = perf_counter()
        logits = _attempt(partial(self._together.run, tokens, step[0].slot.session.adapter))
        seconds = perf_counter() - started
        if isinstance(logits, Exception):
            return [Outcome(held, logits, 0.0) for held in step]
        self._pace.ran_together(step[-1].slot.number - step[0].slot.number + 1, seconds)
        return [
            Outcome(held, _attempt(partial(answer.draw, row, seconds)), seconds / len(step))
            for held, answer, row in zip(step, answers, logits[:, None], strict=True)
        ]


def _alike(one: Held, other: Held) -> bool:
    """Return whether two are computed with the same adapter, or both with none."""
    return one.slot.session.adapter is other.slot.session.adapter


def _attempt(action: Callable[[], T]) -> T | Exception:
    """Return what an action returns, or what it raises."""
    try:
        return action()
    except Exception as error:  # noqa: BLE001 - whoever asked is told, and the others go on
        return error
