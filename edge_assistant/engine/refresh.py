"""Reading anew, while nobody asks for anything, what an eviction has moved: a slot then holds a fresh prefill's rows.

Only what comes again is read, from the first moved position on, and in place. A step of the graph writes the rows of
its own tokens alone, so those behind them are still there, at their places, as they were:

    before       exact exact moved moved moved moved
    one step     exact exact exact exact moved moved        a request comes: the context is as long as it was
    two steps    exact exact exact exact exact exact        and the prefixes keep it

So there is nothing to restore when it ends after any step, no room of its own is needed, and where it ended it goes on
when all is quiet again, if the slot still has that context. What a request may have to wait for is one short step.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edge_assistant.engine.prefixes import Keep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_assistant.engine.prefixes import Prefixes
    from edge_assistant.engine.slots import Slot

_LOG = logging.getLogger(__name__)


class Refresher:
    """Refreshes the contexts of free slots, step by step."""

    def __init__(self, slots: Sequence[Slot], prefixes: Prefixes, step: int) -> None:
        """`slots` are those to look after, none where nothing is to be refreshed; `step` is in tokens."""
        self._slots, self._prefixes, self._step = slots, prefixes, step
        self._begun: Slot | None = None
        self.finished = 0
        """Contexts that were read anew to their end."""
        self.interrupted = 0
        """How often a request came before that."""

    def find(self) -> Slot | None:
        """Return the slot whose context is to be refreshed next, where all are free: the one used last."""
        found = [slot for slot in self._slots if slot.cache.moved]
        return max(found, key=lambda slot: slot.last_turn, default=None)

    def step(self, slot: Slot) -> None:
        """Read some tokens; the last of them let the prefixes keep the context."""
        self._begun = slot
        try:
            slot.session.run_again(self._step)
            if slot.cache.moved == 0:
                self._keep(slot)
        except Exception as error:  # noqa: BLE001 - nobody asked for it; a step that fails leaves no context
            _LOG.warning("a context is not read anew: %s", error)
            self._begun = None

    def interrupt(self) -> None:
        """Note that a request is there."""
        self.interrupted += self._begun is not None
        self._begun = None

    def _keep(self, slot: Slot) -> None:
        self._begun = None
        self.finished += 1
        adapter, cache = slot.session.adapter, slot.cache
        self._prefixes.keep(cache, Keep(cache.comes_again), adapter.identity if adapter else "")
