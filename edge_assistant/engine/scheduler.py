"""The scheduler: many callers, one model.

    submit ─▶ waiting, bounded ─▶ a slot of the cache ─▶ steps, in turns ─▶ tokens to who asked

One worker thread runs every step; it lives while there is something to do. Between two steps it looks who is next:

- Only requests of the highest priority that is there take steps. The others keep their slots, and go on where they were
  without reading anything again. Where a more urgent one finds no slot free, the least urgent of all gives up its own:
  the prefixes keep its rows, and it reads again later what they had no room for.
- Of requests that wait, the most urgent has the next slot; among equals one that was interrupted, then that of the
  caller served least recently, then the first to come.
- In a round every answer takes one step, and at most one chunk of a prompt is read: reading stops no one for longer.
  Chunks of batch work are short (`PATIENT_STEP`), for a more urgent request waits for the end of one that has begun.
  Answers of which one token is due take their step together where `Pace` finds that this pays.
- When as many wait as may, a new request is refused, or puts out the last of a less urgent one. `EngineBusyError` says
  when a place is to be expected: after the time that an answer took to compute of late.
- While there is no request at all, contexts are refreshed (`refresh.py`), in short steps: any request goes first.
- A request that is cancelled or dropped, or whose first token is not there at its deadline, ends before its next step.

Nobody waits for who asked: tokens that are not fetched, at most max_tokens, lie ready, and the slot is free for others.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from contextlib import suppress
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

from edge_assistant.engine.metrics import Counts, Metrics
from edge_assistant.engine.request import PRIORITIES, Said
from edge_assistant.engine.slots import Held
from edge_assistant.engine.steps import Steps
from edge_assistant.errors import DeadlineError, EngineBusyError, EngineClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_assistant.engine.metrics import Ending
    from edge_assistant.engine.refresh import Refresher
    from edge_assistant.engine.request import Request
    from edge_assistant.engine.slots import Slot, Slots
    from edge_assistant.engine.speculate import Pace
    from edge_assistant.engine.steps import Outcome

_CALLERS: Final = 1024
"""Callers of whom it is known when they were served; one that is forgotten counts as new."""
_ANSWER_AT_FIRST_S: Final = 1.0
_SHORTEST_RETRY_S: Final = 0.1
_LEARNING: Final = 0.2


class Scheduler:
    """Runs requests in the slots of one engine."""

    def __init__(
        self, slots: Slots, pace: Pace, refresher: Refresher, queue: int, clock: Callable[[], float] = monotonic
    ) -> None:
        """At most `queue` requests wait that have not begun; `clock` is for waiting and deadlines, in seconds."""
        self._slots, self._refresher, self._queue, self._clock = slots, refresher, queue, clock
        self._steps = Steps(slots.together, pace)
        self._lock = threading.Lock()
        """Held for what callers see of waiting and running requests; never while a step runs."""
        self._waiting: list[Request] = []
        self._worker: threading.Thread | None = None
        self._closed = False
        self._arrivals = self._turns = 0
        self._served: OrderedDict[str, int] = OrderedDict()
        self._counts = {priority: Counts() for priority in PRIORITIES}
        self._answer_s = 0.0

    def submit(self, request: Request) -> None:
        """Let a request wait for its turn.

        Raises:
            EngineBusyError: Too many wait.
            EngineClosedError: The engine was closed.
        """
        with self._lock:
            if self._closed:
                raise EngineClosedError
            request.submitted_s = self._clock()
            request.deadline_s = request.submitted_s + (
                inf if request.claim.deadline_s is None else request.claim.deadline_s
            )
            self._sweep_waiting()
            self._make_room(request)
            self._start_worker()  # that may fail or be interrupted: then nothing waits for one
            self._arrivals += 1
            request.number = self._arrivals
            self._waiting.append(request)

    def close(self) -> None:
        """Compute nothing more: what waits and what runs ends with EngineClosedError."""
        with self._lock:
            self._closed = True
            worker = self._worker
        if worker is not None:
            worker.join()

    def metrics(self) -> Metrics:
        """Return what was counted up to now."""
        with self._lock:
            waiting = Counter(request.claim.priority for request in self._waiting)
            running = Counter(held.request.claim.priority for held in self._slots.held())
            return Metrics(
                sequences=len(self._slots.all),
                capacity=self._slots.capacity,
                cache_bytes=self._slots.cache_bytes,
                by_priority={
                    priority: counts.now(waiting[priority], running[priority])
                    for priority, counts in self._counts.items()
                },
                batches=dict(self._steps.batches),
                chunks=self._steps.chunks,
                answer_s=self._answer_s,
                refreshes=self._refresher.finished,
                refreshes_interrupted=self._refresher.interrupted,
            )

    def _make_room(self, request: Request) -> None:
        """Refuse a request for which there is no place, or put out a less urgent one.

        Those for whom a slot is free only wait for the end of a step: they take no place.
        """
        fresh = [other for other in self._waiting if other.started_s is None]
        free = len(self._slots.all) - len(self._slots.held()) - (len(self._waiting) - len(fresh))
        waiting = len(fresh) - max(0, free)
        if waiting < self._queue:
            return
        error = EngineBusyError(waiting, max(_SHORTEST_RETRY_S, self._answer_s or _ANSWER_AT_FIRST_S))
        last = max(fresh, key=lambda other: (other.rank, other.number))
        if last.rank <= request.rank:
            self._counts[request.claim.priority].shed += 1
            raise error
        self._waiting.remove(last)
        self._finish(last, "shed", error)

    def _start_worker(self) -> None:
        if self._worker is None:
            worker = threading.Thread(target=self._work, name="engine", daemon=True)
            worker.start()
            self._worker = worker  # only now: one whose start is interrupted must not be taken for one that works

    def _work(self) -> None:
        """Run steps as long as there are any; the worker's thread."""
        try:
            self._run()
        except Exception as fault:  # noqa: BLE001 - whoever waits is told, and does not wait for ever
            with self._lock:
                self._worker = None
                left = [*(held.request for held in self._slots.held()), *self._waiting]
                for held in self._slots.held():
                    self._leave(held.slot)
                self._waiting.clear()
                for request in left:
                    with suppress(Exception):  # what fails for one keeps no other waiting
                        self._finish(request, "failed", fault)

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._worker is not threading.current_thread():
                    return  # its start was interrupted, and it came up all the same
                self._sweep_waiting()
                self._sweep_held()
                given = self._give_slots()
                idle = not self._slots.held()
                moved = self._refresher.find() if idle and not self._closed else None
                if idle and moved is None:
                    self._worker = None
                    return
            if moved is not None:
                self._refresher.step(moved)
                continue
            self._refresher.interrupt()
            for held in given:
                self._take(self._steps.place(held))
            self._round()

    def _round(self) -> None:
        """Let each of the most urgent take a step, and one read, unless meanwhile there is something else to do."""
        all_held = self._slots.held()
        rank = min((held.request.rank for held in all_held), default=0)
        turn = sorted((held for held in all_held if held.request.rank == rank), key=lambda held: held.request.last_turn)
        steps, failed = self._steps.plan(turn)
        for outcome in failed:
            self._take(outcome)
        for step in steps:
            if self._outranked(rank) or any(self._why_end(held.request) for held in step):
                return
            self._turns += 1
            for outcome in self._steps.run(step):
                self._take(outcome)

    def _take(self, outcome: Outcome) -> None:
        """Hand on what a step has said, and free the slot of a request that has ended with it."""
        request = outcome.held.request
        request.last_turn = self._turns
        request.computed_s += outcome.seconds
        if isinstance(outcome.said, Exception):
            with self._lock:
                self._leave(outcome.held.slot)
                self._finish(request, "failed", outcome.said)
        elif request.work.ended:
            with self._lock:
                self._leave(outcome.held.slot)
                slower = request.computed_s - self._answer_s
                self._answer_s += _LEARNING * slower if self._answer_s else slower
                self._finish(request, "finished", *outcome.said)
        else:
            for said in outcome.said:
                request.out.put(said)

    def _outranked(self, rank: int) -> bool:
        with self._lock:
            return self._closed or any(request.rank < rank for request in self._waiting)

    def _sweep_waiting(self) -> None:
        for request in list(self._waiting):
            if (why := self._why_end(request)) is not None:
                self._waiting.remove(request)
                self._finish(request, *why)

    def _sweep_held(self) -> None:
        for held in self._slots.held():
            if (why := self._why_end(held.request)) is not None:
                self._leave(held.slot)
                self._finish(held.request, *why)

    def _why_end(self, request: Request) -> tuple[Ending, Said | Exception] | None:
        """Return why a request takes no further step, None where it may: as what it counts, and its last word."""
        if self._closed:
            return "failed", EngineClosedError()
        if request.given_up:
            return "cancelled", Said(None, request.work.progress)
        if not request.work.begun and self._clock() > request.deadline_s:
            return "late", DeadlineError(request.deadline_s - request.submitted_s)
        return None

    def _finish(self, request: Request, how: Ending, *last: Said | Exception) -> None:
        self._counts[request.claim.priority].end(how, request.work.progress.usage)
        request.end(*last)

    def _give_slots(self) -> list[Held]:
        """Return the requests that waited and may begin, or go on, with the slots that they have now."""
        given: list[Held] = []
        while self._waiting:
            request = min(self._waiting, key=self._order)
            slot = self._slots.best_free(request.work.text, request.work.adapter) or self._taken_for(request)
            if slot is None:
                break
            self._waiting.remove(request)
            slot.request = request
            self._serve(request)
            given.append(Held(slot, request))
        return given

    def _order(self, request: Request) -> tuple[int, bool, int, int]:
        return request.rank, request.started_s is None, self._served.get(request.claim.caller, -1), request.number

    def _taken_for(self, request: Request) -> Slot | None:
        """Return the slot of the least urgent request, the one that came last, where this one would be next."""
        *_, least = held = sorted(self._slots.held(), key=lambda held: (held.request.rank, held.request.number))
        if least.request.rank <= request.rank or held[0].request.rank < request.rank:
            return None
        self._leave(least.slot)
        try:
            least.request.work.leave()
        except Exception as error:  # noqa: BLE001 - it is told, and nobody else has to hear of it
            self._finish(least.request, "failed", error)
        else:
            self._counts[least.request.claim.priority].evicted += 1
            self._waiting.append(least.request)
        return least.slot

    def _serve(self, request: Request) -> None:
        """Note that a request, and its caller, has a turn."""
        self._turns += 1
        self._served[request.claim.caller] = self._turns
        self._served.move_to_end(request.claim.caller)
        while len(self._served) > _CALLERS:
            self._served.popitem(last=False)
        if request.started_s is None:
            request.started_s = self._clock()
            self._counts[request.claim.priority].start(request.started_s - request.submitted_s)

    def _leave(self, slot: Slot) -> None:
        self._turns += 1
        slot.last_turn = self._turns
        slot.request = None
