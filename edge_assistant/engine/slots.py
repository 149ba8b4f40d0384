"""The slots of the cache: which a request gets, so that what was read before is read again as seldom as can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_assistant.engine.evict import key_scales
from edge_assistant.engine.kv_cache import KvCache, capacity_of, slots
from edge_assistant.engine.session import Session

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from edge_assistant.bundle import Bundle
    from edge_assistant.config import EngineSettings
    from edge_assistant.engine.adapter import Adapter
    from edge_assistant.engine.request import Request
    from edge_assistant.engine.session import Together


class Slot:
    """Room for one sequence, and the request that has it."""

    def __init__(self, number: int, session: Session) -> None:
        self.number = number
        self.session = session
        self.request: Request | None = None
        self.last_turn = 0
        """When it was last in use, in the scheduler's count of steps."""

    @property
    def cache(self) -> KvCache:
        """Its rows."""
        return self.session.cache


@dataclass(frozen=True, slots=True)
class Held:
    """A slot, and the request that has it."""

    slot: Slot
    request: Request


class Slots:
    """All slots of one engine; they share the budget and the graph."""

    def __init__(self, slots: list[Slot], together: Together | None, cache_bytes: int) -> None:
        """Take what `load` has made."""
        self.all = slots
        self.together = together
        """Runs a step of several; None where they must be run one by one."""
        self.cache_bytes = cache_bytes

    @classmethod
    def load(cls, bundle: Bundle, settings: EngineSettings, budget: int, prepacked: Path | None = None) -> Self:
        """Load the graph, with `prepacked` weights where there are some, and allocate a cache of `budget` bytes.

        It lies where the graph computes.

        Raises:
            CacheBudgetError, BundleGraphError, DeviceMemoryError: As for `Engine.load`.
        """
        manifest = bundle.manifest
        sequences = settings.sequences or manifest.cache_size.sequences(budget)
        capacity = capacity_of(manifest, budget, sequences)
        # Only the loaded graph knows where it computes: until then one token will do.
        loaded = Session(bundle, KvCache(manifest, 1), settings, prepacked)
        loaded.warm_up()
        layers, caches = slots(manifest, capacity, sequences, key_scales(bundle), loaded.device)
        sessions = [loaded.another(cache) for cache in caches]
        # A bounded window drops rows by one length for all.
        together = loaded.together(layers, caches) if sequences > 1 and manifest.cache.window != "bounded" else None
        nbytes = sequences * manifest.cache_size.of(capacity)
        return cls([Slot(number, session) for number, session in enumerate(sessions)], together, nbytes)

    def best_free(self, text: NDArray[np.int64], adapter: Adapter | None = None) -> Slot | None:
        """Return the free slot for a context [n]: one of which it keeps half or more, else the one unused for longest.

        Rows of another adapter than its own are of no use to it.

        So two that merely begin alike do not drive each other out: beginnings are the prefixes' affair.
        """
        free = [slot for slot in self.all if slot.request is None]
        if not free:
            return None
        known = [slot for slot in free if slot.session.adapter is adapter]
        best = max(known, key=lambda slot: slot.session.keeps(text), default=None)
        if best:
            kept = best.session.keeps(text)
            # More than the beginning is kept only where the same conversation has dropped its oldest turns.
            if kept > best.cache.shared(text) or 0 < best.cache.length <= 2 * kept:
                return best
        return min(free, key=lambda slot: slot.last_turn)

    def held(self) -> list[Held]:
        """Return the slots in use."""
        return [Held(slot, slot.request) for slot in self.all if slot.request is not None]

    @property
    def capacity(self) -> int:
        """Tokens of each."""
        return self.all[0].cache.capacity
