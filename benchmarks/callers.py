"""What many callers get together, beside what one gets alone: tokens a second of all, and to the first token of each.

Each caller asks for an answer of its own to a prompt of random tokens, without guesses; with `--shared` the prompts of
those who ask at once begin alike, as where they ask about one home. Ours: one alone, all at once, and all at once of an
engine that has one sequence, so that they are computed one after the other. llama.cpp: one alone, and all at once in
its own batches, a sequence each, a token of each in every step; onnxruntime-genai the same. Where prompts begin alike
also llama.cpp as a program of one's own could use it, which reads that once for all sequences of a batch; neither its
server nor its Python package does. In turn, so that a noisy machine is noisy for all; medians. The last line is one
JSON object.

    python benchmarks/callers.py build/bench/int4-b128 --callers 4 --gguf build/bench/twin.gguf
    python benchmarks/callers.py build/bench/int4-b128 --gguf build/bench/twin.gguf --prompt 190 --shared 170
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import runtimes
from worker import Worker

OURS = "edge-assistant"
COPYING = f"{runtimes.LLAMA}, the beginning read once"


def main() -> None:
    """Read the command line, measure, print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, help="the bundle")
    parser.add_argument("--callers", type=int, default=4, metavar="N")
    parser.add_argument("--prompt", type=int, default=16, metavar="N", help="tokens of each prompt")
    parser.add_argument("--shared", type=int, default=0, metavar="N", help="tokens with which all prompts begin alike")
    parser.add_argument("--decode", type=int, default=64, metavar="N", help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="counted rounds, after one that warms up")
    runtimes.add_options(parser)
    options = parser.parse_args()
    loaded = {"context": options.prompt + options.decode + 1, "sequences": options.callers}
    several = runtimes.bundle(OURS, options.bundle, options, **loaded)
    single = runtimes.bundle(f"{OURS}, one sequence", options.bundle, options, **(loaded | {"sequences": 1}))
    others = runtimes.others(options, **loaded)
    if options.gguf and options.shared:
        others.append(runtimes.llama(options.gguf, options, name=COPYING, copying=True, **loaded))
    ways = {f"{worker.name}, one": (worker, 1) for worker in (several, *others)}
    ways |= {f"{worker.name}, together": (worker, options.callers) for worker in (several, *others)}
    ways[f"{OURS}, in turn"] = (single, options.callers)
    found = measure(ways, options)
    for worker in (several, single, *others):
        worker.close()
    settings = {name: getattr(options, name) for name in ("callers", "prompt", "shared", "decode")}
    print(runtimes.report("callers", (several, *others), options, **settings, **summary(found, others)))


def measure(ways: dict[str, tuple[Worker, int]], options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Return what each way took in each round."""
    found = defaultdict(list)
    draw = Random(0)
    vocab_size = min(int(worker.loaded["vocab_size"]) for worker, _ in ways.values())
    for index in range(options.rounds + 1):
        for name, (worker, callers) in ways.items():
            shared = [draw.randrange(14, vocab_size) for _ in range(options.shared)]
            own = range(options.prompt - options.shared)
            prompts = [[*shared, *(draw.randrange(14, vocab_size) for _ in own)] for _ in range(callers)]
            took = worker.do("together", prompts=prompts, count=options.decode)
            if index:
                found[name].append({**took, "tok_s": callers * options.decode / took["seconds"]})
    return found


def summary(found: dict[str, list[dict[str, Any]]], others: list[Worker]) -> dict[str, Any]:
    """Return the medians by way, and what ours get together over what the others do."""
    rate = {name: round(median(took["tok_s"] for took in rounds), 2) for name, rounds in found.items()}
    firsts = {name: [first for took in rounds for first in took["first_s"]] for name, rounds in found.items()}
    ours = rate[f"{OURS}, together"]
    return {
        "tok_s": rate,
        "first_token_s": {name: round(median(waited), 4) for name, waited in firsts.items()},
        "cpu_s_per_answer": {
            name: round(median(took["cpu_s"] / len(took["first_s"]) for took in rounds), 4)
            for name, rounds in found.items()
        },
        "together_over_one": round(ours / rate[f"{OURS}, one"], 2),
        "together_over": {worker.name: round(ours / rate[f"{worker.name}, together"], 2) for worker in others},
        "steps_of_so_many_answers": dict(sorted(found[f"{OURS}, together"][-1]["batches"].items())),
    }


if __name__ == "__main__":
    main()
