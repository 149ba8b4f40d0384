"""The time to the first token: of a prompt read whole, with its beginning kept in memory, and after a restart.

A prompt of random tokens begins with `--prefix` tokens that every prompt shares and ends with `--question` of its own.
It is asked cold, behind another prompt that has driven it out of the cache, and of an engine that was loaded anew and
finds the prefix on disk only; a decode step of the same engine at the same length stands beside each. In turn, medians.
The last line is one JSON object.

    python benchmarks/first_token.py build/bench/int4-b128 --prefix 1000 --question 8
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from time import perf_counter

import numpy as np

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine, Keep, SamplingParams

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine

_STEPS = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, help="the bundle")
    parser.add_argument("--prefix", type=int, default=1000, metavar="N", help="tokens that prompts share")
    parser.add_argument("--question", type=int, default=8, metavar="N", help="tokens of each prompt's own")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle)
    times: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for name, seconds in one_round(bundle, Path(folder), args).items():
                times[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    step = medians["decode step"]
    print(
        json.dumps(
            {
                "benchmark": "first_token",
                "bundle": bundle.manifest.name,
                "prefix": args.prefix,
                "question": args.question,
                "seconds": {name: round(seconds, 4) for name, seconds in medians.items()},
                "in_decode_steps": {name: round(seconds / step, 2) for name, seconds in medians.items()},
                "machine": machine(),
            }
        )
    )


def one_round(bundle: Bundle, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Return seconds to the first token by what was kept, and of a decode step."""
    rng = np.random.default_rng(0)
    shared, *others = rng.integers(14, bundle.manifest.architecture.vocab_size, (4, args.prefix)).tolist()
    questions = [other[: args.question] for other in others]
    budget = bundle.manifest.cache_size.of(args.prefix + args.question + _STEPS + 1)
    room = bundle.manifest.cache_size.of(2 * args.prefix)
    settings = EngineSettings(
        threads=args.threads, sequences=1, kv_cache_bytes=budget, prefix_bytes=room, prefix_disk_bytes=room, guesses=0
    )
    found = {}
    with Engine.load(bundle, settings, folder) as engine:
        first(engine, others[0])
        found["cold"] = first(engine, [*rng.permutation(shared).tolist(), *questions[0]])
        first(engine, [*shared, *questions[0]], Keep(args.prefix, lasting=True))
        first(engine, others[1])
        found["kept in memory"] = first(engine, [*shared, *questions[1]])
        found["decode step"] = step(engine, [*shared, *questions[1]])
    with Engine.load(bundle, settings, folder) as engine:
        first(engine, others[0][:16])
        found["after a restart"] = first(engine, [*shared, *questions[2]])
    return found


def first(engine: Engine, prompt: list[int], keep: Keep | None = None) -> float:
    started = perf_counter()
    for _ in engine.generate(prompt, SamplingParams(max_tokens=1), keep=keep):
        return perf_counter() - started
    raise AssertionError


def step(engine: Engine, prompt: list[int]) -> float:
    generation = engine.generate(prompt, SamplingParams(max_tokens=_STEPS + 1))
    for _ in generation:
        pass
    return generation.timing.decode_s / _STEPS


if __name__ == "__main__":
    main()
