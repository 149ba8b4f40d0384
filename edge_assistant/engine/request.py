"""Requests: for whom an answer is, how urgent it is, and the way its tokens take from the worker to who asked."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from math import inf
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Literal, get_args

from edge_assistant.errors import PriorityError

if TYPE_CHECKING:
    from edge_assistant.engine.answer import Answer
    from edge_assistant.engine.score import Score

FinishReason = Literal["stop", "length", "cancelled"]
Priority = Literal["voice", "interactive", "batch"]

PRIORITIES: Final[tuple[Priority, ...]] = get_args(Priority)
"""The most urgent first."""


@dataclass(frozen=True, slots=True)
class Claim:
    """For whom a request is, and how urgent."""

    caller: str = ""
    """Those who share a name share a turn: of callers that wait, the one served least recently is next."""
    priority: Priority = "interactive"
    """A more urgent request stops less urgent ones between two tokens; they go on after it."""
    deadline_s: float | None = None
    """Seconds by which the first token has to be there; what has begun in time is finished. None waits for ever."""

    def __post_init__(self) -> None:
        """Raise PriorityError for a priority that there is not: the worker would meet it where all would suffer.

        So it would a caller who cannot be looked up, which is a TypeError.
        """
        hash(self.caller)
        if self.priority not in PRIORITIES:
            raise PriorityError(self.priority, PRIORITIES)


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int = 0
    """Those of the answer, without the token that ended it."""
    cached_tokens: int = 0
    """Those of the prompt that were in the cache already, or in a prefix that was kept."""
    accepted_prediction_tokens: int = 0
    """Tokens that were guessed, run, and then drawn; they are among those of the answer, or ended it."""
    rejected_prediction_tokens: int = 0
    """Those that were guessed and run in vain; they are not."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds in which the engine was at work on an answer; waiting for others is not in them."""

    prefill_s: float = 0.0
    """From the prompt to the first token."""
    decode_s: float = 0.0
    """All tokens after the first."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an answer has come."""

    usage: Usage
    timing: Timing = Timing()
    finish_reason: FinishReason = "cancelled"
    """One that has not come to its end is cancelled if it ends here."""


@dataclass(frozen=True, slots=True)
class Said:
    """A token, or None for the end, and how far the answer has come with it."""

    token: int | None
    progress: Progress


@dataclass(slots=True, eq=False)
class Request:
    """Work that waits for its turn or has it."""

    work: Answer | Score
    claim: Claim
    cancel: threading.Event
    number: int = 0
    """In the order of arrival."""
    submitted_s: float = 0.0
    """By the scheduler's clock, as the next two."""
    deadline_s: float = inf
    started_s: float | None = None
    """When it had its first turn."""
    last_turn: int = 0
    """In the scheduler's count of steps."""
    computed_s: float = 0.0
    """Its share of the engine's time so far."""
    dropped: bool = False
    """Nobody waits for it any more."""
    out: SimpleQueue[Said | Exception] = field(default_factory=SimpleQueue)

    @property
    def rank(self) -> int:
        """0 for the most urgent."""
        return PRIORITIES.index(self.claim.priority)

    def end(self, *last: Said | Exception) -> None:
        """Tell who asked the last that there is to tell."""
        try:
            self.work.close()
        finally:  # whatever becomes of that, nobody waits for ever
            for said in last:
                self.out.put(said)

    @property
    def given_up(self) -> bool:
        """Whether whoever asked wants no more of it."""
        return self.dropped or self.cancel.is_set()
