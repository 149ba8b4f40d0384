"""Print how much memory a full cache takes beyond the loaded model, as JSON: run by test_session.py.

It is given a bundle, the bytes of its cache's budget, and how many sequences share them.
"""

from __future__ import annotations

import json
import sys

import psutil

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine.kv_cache import KvCache, capacity_of, slots
from edge_assistant.engine.session import Session


def anonymous_bytes() -> int:
    """Return what is resident without the mapped pages of files: the weights' come and go."""
    memory = psutil.Process().memory_info()
    return memory.rss - memory.shared


def main() -> None:
    bundle = Bundle.open(sys.argv[1])
    settings = EngineSettings(threads=1)
    # A first run elsewhere, so that the code's own pages are not counted.
    Session(bundle, KvCache(bundle.manifest, 8), settings).run([1])
    sequences = int(sys.argv[3])
    capacity = capacity_of(bundle.manifest, int(sys.argv[2]), sequences)
    layers, caches = slots(bundle.manifest, capacity, sequences)
    first = Session(bundle, caches[0], settings)
    sessions = [first, *map(first.another, caches[1:])]
    before = anonymous_bytes()
    for buffers in layers:
        for buffer in buffers:
            buffer[:, :, :capacity] = 1
    # Steps over the whole context: a cache that is copied on its way shows here, and one that drops rows keeps some.
    for cache in caches:
        cache.length = capacity - 1
    if bundle.manifest.cache.window is None and sequences > 1:
        first.together(layers, caches).run(dict.fromkeys(range(sequences), 1))
    else:
        for session in sessions:
            session.run([1])
    computed = sequences * bundle.manifest.cache_size.of(capacity)
    print(json.dumps({"computed": computed, "resident": anonymous_bytes() - before}))


main()
