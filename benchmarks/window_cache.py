"""The memory of a cache whose layers have a window, bounded and of full length, while a long context is read.

    edge-assistant-export synth --shape mistral-7b-v0.1 --layers 1 CHECKPOINT
    edge-assistant-export model CHECKPOINT BOUNDED --block-size 128
    edge-assistant-export model CHECKPOINT FULL --block-size 128 --window-cache full
    python benchmarks/window_cache.py BOUNDED FULL

Each bundle is loaded by a process of its own, which reads random tokens to the end of the context; `resident` is what
its anonymous memory has grown by since a few tokens had been read, buffers of the computation included, and `computed`
what the cache takes by arithmetic. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from machine import machine
from process_memory import MIB

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.device.memory import resident
from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.session import Session


def measure(path: Path, tokens: int) -> dict[str, int]:
    """Read so many tokens, and return the bytes computed and measured."""
    bundle = Bundle.open(path)
    settings = EngineSettings(threads=1)
    session = Session(bundle, KvCache(bundle.manifest, tokens), settings)
    ids = np.random.default_rng(0).integers(session.vocab_size, size=tokens)
    session.run(ids[:8])
    before = resident().anonymous
    for chunk in session.chunks(ids[8:]):
        session.run(chunk)
    return {"computed": bundle.manifest.cache_size.of(tokens), "resident": resident().anonymous - before}


def main() -> None:
    """Measure each bundle in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--alone", action="store_true", help="measure here, not in a process of its own")
    args = parser.parse_args()
    if args.alone:
        print(json.dumps(measure(args.bundles[0], args.tokens)))
        return
    results = {}
    for path in args.bundles:
        command = [sys.executable, __file__, str(path), "--tokens", str(args.tokens), "--alone"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results[path.name] = found = json.loads(done.stdout)
        print(f"{path.name}: computed {found['computed'] / MIB:.0f} MiB, resident {found['resident'] / MIB:.0f} MiB")
    print(json.dumps({"tokens": args.tokens, "bundles": results, "machine": machine()}))


if __name__ == "__main__":
    main()
