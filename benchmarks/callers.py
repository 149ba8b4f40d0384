"""What many callers get together, beside what one gets alone: tokens a second of all, and to the first token of each.

Each caller asks for an answer of its own to a prompt of random tokens, without guesses; first one alone, then all at
once, then all at once of an engine that has one sequence, so that they are computed one after the other. In turn, so
that a noisy machine is noisy for all; medians. The last line is one JSON object.

    python benchmarks/callers.py build/bench/int4-b128 --callers 4
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
from collections import Counter, defaultdict
from pathlib import Path
from time import perf_counter

import numpy as np

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Claim, Engine, SamplingParams

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, help="the bundle")
    parser.add_argument("--callers", type=int, default=4, metavar="N")
    parser.add_argument("--prompt", type=int, default=16, metavar="N", help="tokens of each prompt")
    parser.add_argument("--decode", type=int, default=64, metavar="N", help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="counted rounds, after one that warms up")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle)
    with (
        Engine.load(bundle, settings(bundle, args, args.callers)) as several,
        Engine.load(bundle, settings(bundle, args, 1)) as single,
    ):
        ways = {"one": (several, 1), "together": (several, args.callers), "in turn": (single, args.callers)}
        speeds, firsts = measure(bundle, ways, args)
        batches = several.metrics().batches
    rate = {name: round(statistics.median(found), 2) for name, found in speeds.items()}
    report = {
        "benchmark": "callers",
        "bundle": bundle.manifest.name,
        "callers": args.callers,
        "prompt": args.prompt,
        "decode": args.decode,
        "tok_s": rate,
        "first_token_s": {name: round(statistics.median(found), 4) for name, found in firsts.items()},
        "together_to_one": round(rate["together"] / rate["one"], 2),
        "steps_of_so_many_answers": {str(size): steps for size, steps in sorted(batches.items())},
        "machine": machine(),
    }
    print(json.dumps(report))


def settings(bundle: Bundle, args: argparse.Namespace, sequences: int) -> EngineSettings:
    """Return settings that give each of some sequences room for a prompt and its answer."""
    budget = sequences * bundle.manifest.cache_size.of(args.prompt + args.decode)
    return EngineSettings(
        threads=args.threads, kv_cache_bytes=budget, sequences=sequences, prefix_bytes=0, guesses=0, queue=args.callers
    )


def measure(
    bundle: Bundle, ways: dict[str, tuple[Engine, int]], args: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return tokens per second of all callers, and seconds to the first token of each, by way."""
    speeds, firsts = defaultdict(list), defaultdict(list)
    rng = np.random.default_rng(0)
    for number in range(args.rounds + 1):
        for name, (engine, callers) in ways.items():
            prompts = rng.integers(14, bundle.manifest.architecture.vocab_size, (callers, args.prompt)).tolist()
            seconds, waited = ask_all(engine, prompts, args.decode)
            if number:
                speeds[name].append(callers * args.decode / seconds)
                firsts[name] += waited
    return speeds, firsts


def ask_all(engine: Engine, prompts: list[list[int]], decode: int) -> tuple[float, list[float]]:
    """Let a thread ask for each prompt; return the seconds until all are answered, and those to each first token."""
    waited: list[float] = []
    said: Counter[int] = Counter()

    def ask(number: int) -> None:
        generation = engine.generate(prompts[number], SamplingParams(max_tokens=decode), claim=Claim(str(number)))
        next(generation)
        waited.append(perf_counter() - started)
        said[number] = 1 + sum(1 for _ in generation)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(prompts))]
    started = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = perf_counter() - started
    assert set(said.values()) == {decode}, "an answer was cut short"
    return seconds, waited


if __name__ == "__main__":
    main()
