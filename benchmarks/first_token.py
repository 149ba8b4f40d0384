"""The time to the first token: of a prompt read whole, with its beginning kept, and after a restart.

A prompt of random tokens begins with `--prefix` tokens that others share and ends with `--question` of its own. Each
runtime is asked one that it has never seen, then a second one with the beginning of the first; a decode step at that
length stands beside them. Ours is asked another prompt in between, which drives the beginning out of the cache, and
once more after its engine was loaded anew and finds it on disk only; the others are asked the second right behind the
first, for they keep the last context alone. In turn, medians. The last line is one JSON object.

    python benchmarks/first_token.py build/bench/int4-b128 --prefix 1000 --question 2 --gguf build/bench/twin.gguf
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))
import runtimes
from worker import Worker

OURS = "edge-assistant"
STEPS = 16
ANOTHER = 16
"""Tokens of a prompt that takes the place of what the cache held."""


def main() -> None:
    """Read the command line, measure, print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, help="the bundle")
    parser.add_argument("--prefix", type=int, default=1000, metavar="N", help="tokens that prompts share")
    parser.add_argument("--question", type=int, default=2, metavar="N", help="tokens of each prompt's own")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    runtimes.add_options(parser)
    options = parser.parse_args()
    context = options.prefix + options.question + STEPS + 1
    with tempfile.TemporaryDirectory() as folder:
        prefix = options.prefix + options.question
        ours = runtimes.bundle(OURS, options.bundle, options, context=context, prefix=prefix, prefixes=folder)
        workers = [ours, *runtimes.others(options, context=context)]
        medians = measure(workers, options)
        for worker in workers:
            worker.close()
    seconds = {name: {what: round(took, 4) for what, took in row.items()} for name, row in medians.items()}
    steps = {
        name: {what: round(took / row["decode step"], 2) for what, took in row.items()} for name, row in medians.items()
    }
    settings = {"prefix": options.prefix, "question": options.question, "rounds": options.rounds}
    print(runtimes.report("first_token", workers, options, **settings, seconds=seconds, in_decode_steps=steps))


def measure(workers: Sequence[Worker], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the median seconds of each worker by what was asked."""
    times: dict[str, dict[str, list[float]]] = {worker.name: defaultdict(list) for worker in workers}
    draw = Random(0)
    vocab_size = min(int(worker.loaded["vocab_size"]) for worker in workers)

    def tokens(number: int) -> list[int]:
        return [draw.randrange(14, vocab_size) for _ in range(number)]

    for worker in workers:
        worker.do("answer", prompt=tokens(ANOTHER), count=1)  # the first run of all takes longer
    for _ in range(options.rounds):
        shared = tokens(options.prefix)
        prompts = [[*shared, *tokens(options.question)] for _ in range(4)]
        for worker in workers:
            for what, seconds in one_round(worker, prompts, tokens(ANOTHER), options.prefix).items():
                times[worker.name][what].append(seconds)
    return {name: {what: median(found) for what, found in row.items()} for name, row in times.items()}


def one_round(worker: Worker, prompts: list[list[int]], another: list[int], prefix: int) -> dict[str, float]:
    """Return a worker's seconds to the first token by what it had kept, and those of a decode step."""
    ours = worker.name == OURS
    found = {"read whole": worker.do("answer", prompt=prompts[0], count=0, **({"keep": prefix} if ours else {}))}
    if ours:
        worker.do("answer", prompt=another, count=0)
    found["kept in memory"] = worker.do("answer", prompt=prompts[1], count=0)
    step = worker.do("answer", prompt=prompts[2], count=STEPS)["rest_s"] / STEPS
    if ours:
        worker.do("reload")
        found["after a restart"] = worker.do("answer", prompt=prompts[3], count=0)
    return {**{what: took["first_s"] for what, took in found.items()}, "decode step": step}


if __name__ == "__main__":
    main()
