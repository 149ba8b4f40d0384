"""What guessed tokens are worth at 7B shape: how many of home-mini's come true, times what a run of several costs.

A random 7B has nothing to guess. So the acceptance is home-mini's, on the questions that it is evaluated with; the cost
of a run of several tokens is measured at the shape of the bundle and of its GGUF twin, in turn; and tokens a second are
the product. Answers in a sentence (grounded in the home) and calls of tools (JSON) are counted apart.

    ours        the engine itself, through `ChatModel` and with its grammar; its clock tells what each run would cost at
                the shape, so that it paces its guesses as it would there
    hindsight   the same guesses, but in each run as many as turn out to be best: the ceiling that our costs allow; and
                beside it always the same number of them, or as many as there are, the best of which is known afterwards
    llama.cpp   llama-cpp-python's prompt lookup on the answers of home-mini's own GGUF twin, without a grammar; with
                each number of guesses, the best of which counts

What a grammar computes is counted for neither, nor what drawing a token takes.

The last line is one JSON object.

    python benchmarks/guesses.py build/bench/int4-b128 --gguf build/bench/twin.gguf --questions 150
"""

from __future__ import annotations

import argparse
import sys
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import acceptance
import batch_cost
import runtimes
from acceptance import KINDS, Answers

from edge_assistant_export.reference_model.splits import cases

OURS = "edge-assistant"


def main() -> None:
    """Read the command line, measure, print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="the bundle whose shape counts")
    parser.add_argument("--gguf", type=Path, required=True, metavar="FILE", help="its twin, made by gguf_twin.py")
    parser.add_argument("--home-mini", type=Path, default=Path("models/home-mini"), metavar="DIR")
    parser.add_argument("--questions", type=int, default=150, metavar="N", help="of each of the splits a, b and c")
    parser.add_argument(
        "--context", type=int, default=300, metavar="N", help="tokens before the runs that are measured"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="counted rounds, after one that warms up")
    runtimes.add_threads(parser)
    options = parser.parse_args()
    context = options.context + max(batch_cost.TOKENS)
    workers = (
        runtimes.bundle(OURS, options.bundle, options, script="runner_session.py", context=context),
        runtimes.llama(options.gguf, options, context=context, guessing=True),
    )
    costs = batch_cost.measure(workers, options.context, options.rounds)
    for worker in workers:
        worker.close()
    asked = [*chain.from_iterable(cases(split, options.questions) for split in ("a", "b", "c"))]
    print(f"{len(asked)} questions", file=sys.stderr)
    ours = acceptance.ours(options.home_mini, asked, costs[OURS].seconds)
    llamas = acceptance.llamas(options.home_mini, asked, costs[runtimes.LLAMA].seconds)
    kinds = {kind: by_kind(ours[kind], {most: row[kind] for most, row in llamas.items()}) for kind in KINDS}
    print(
        runtimes.report(
            "guesses",
            workers,
            options,
            batch_cost={name: cost.over_one() for name, cost in costs.items()},
            plain_tok_s={name: round(1 / cost.seconds(1, 1), 2) for name, cost in costs.items()},
            **kinds,
        )
    )


def by_kind(ours: Answers, llamas: dict[int, Answers]) -> dict[str, Any]:
    """Return what answers of one kind took by runtime, llama.cpp's by its number of guesses, and what counts of it."""
    best = max(llamas, key=lambda most: llamas[most].speed)
    with_lookup = max(found.speed for most, found in llamas.items() if most)
    return {
        OURS: ours.as_json(),
        "tok_s_by_guesses": {most: round(ours.tokens / seconds, 2) for most, seconds in ours.fixed.items()},
        "hindsight_tok_s": round(ours.tokens / ours.least, 2),
        "share_of_best_count": round(min(ours.fixed.values()) / ours.seconds, 3),
        "share_of_hindsight": round(ours.least / ours.seconds, 3),
        runtimes.LLAMA: {"guesses": best, **llamas[best].as_json()},
        "llama.cpp_tok_s_by_guesses": {most: round(found.speed, 2) for most, found in llamas.items()},
        "over_llama.cpp": round(ours.speed / llamas[best].speed, 2),
        "over_llama.cpp_with_lookup": round(ours.speed / with_lookup, 2),
    }


if __name__ == "__main__":
    main()
