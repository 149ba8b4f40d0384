"""Print how much memory a full cache takes beyond the loaded model, as JSON: run by test_session.py.

It is given a bundle and the bytes of its cache's budget.
"""

from __future__ import annotations

import json
import sys

import psutil

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine.kv_cache import KvCache, capacity_of
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
    cache = KvCache(bundle.manifest, capacity_of(bundle.manifest, int(sys.argv[2])))
    session = Session(bundle, cache, settings)
    before = anonymous_bytes()
    for buffers in cache.layers:
        for buffer in buffers:
            buffer[:, :, : cache.capacity] = 1
    # A step over the whole context: a cache that is copied on its way shows here, and one that drops rows keeps some.
    cache.length = cache.capacity - 1
    session.run([1])
    computed = bundle.manifest.cache_size.of(cache.capacity)
    print(json.dumps({"computed": computed, "resident": anonymous_bytes() - before}))


main()
