"""What the scheduler counts: a snapshot says how it was up to now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edge_assistant.engine.request import Priority, Usage

Ending = Literal["finished", "cancelled", "failed", "late", "shed"]


@dataclass(slots=True)
class Counts:
    """Of the requests of one priority, since the engine was loaded; tokens are of those that have ended."""

    waiting: int = 0
    """Now, those that were interrupted and have lost their slot among them."""
    running: int = 0
    """Now, in a slot."""
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    late: int = 0
    """Given up at their deadline."""
    shed: int = 0
    """Refused or put out because too many waited."""
    evicted: int = 0
    """How often one lost its slot to a more urgent one."""
    started: int = 0
    waited_s: float = 0.0
    """From request to first turn, of all that have started together."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0

    def start(self, waited_s: float) -> None:
        """Count the first turn of a request."""
        self.started += 1
        self.waited_s += waited_s

    def end(self, how: Ending, usage: Usage) -> None:
        """Count the end of a request."""
        setattr(self, how, getattr(self, how) + 1)
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.completion_tokens += usage.completion_tokens
        self.accepted_prediction_tokens += usage.accepted_prediction_tokens
        self.rejected_prediction_tokens += usage.rejected_prediction_tokens

    def now(self, waiting: int, running: int) -> Counts:
        """Return a copy with what is only known now."""
        return replace(self, waiting=waiting, running=running)


@dataclass(frozen=True, slots=True)
class Metrics:
    """A snapshot."""

    sequences: int
    """Slots of the cache."""
    capacity: int
    """Tokens of each."""
    cache_bytes: int
    """Of all slots together."""
    by_priority: Mapping[Priority, Counts]
    batches: Mapping[int, int]
    """How many steps were one token of so many answers; 1 are those alone, with guesses or without."""
    chunks: int
    """Steps that read a part of a prompt."""
    answer_s: float
    """Computing time of an answer of late, in seconds; 0 before the first."""
    refreshes: int
    """Contexts that were read anew behind an eviction, to their end, while nobody asked for anything."""
    refreshes_interrupted: int
    """How often a request came before the end of one."""
