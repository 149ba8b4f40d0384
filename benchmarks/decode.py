"""Prefill and decode speed, memory, load time and CPU seconds of bundles beside other runtimes, in one alternating run.

Every model stays loaded in a process of its own; in each round each of them prefills and decodes the same number
of tokens, one after the other, so that a noisy machine is noisy for all. Medians over the rounds; ratios against
llama.cpp. The threads of all wait in the same way (--spinning). The last line is one JSON object.

    python benchmarks/decode.py --bundle int4-b32=PATH --warm int4-b128=PATH --gguf twin.gguf \
        --genai PATH --genai-python .venv-genai/bin/python

A bundle that is named with --warm is measured as it is, and once more with its weights mapped as `edge-assistant warm`
writes them. In each round the memory's read bandwidth is measured too: the ceiling is what that allows in decoding.
CPU seconds stand for energy: those of all threads for one answer, and their share of the time that it took.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent))
import runtimes
from process_memory import MIB
from worker import Worker

from edge_assistant.bundle import Bundle
from edge_assistant.engine.roofline import cache_bytes_per_token, read_bandwidth, weight_bytes_per_token


def main() -> None:
    """Read the command line and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", action="append", default=[], metavar="NAME=PATH", help="a bundle; may be repeated")
    parser.add_argument("--warm", action="append", default=[], metavar="NAME=PATH", help="the same, and mapped as well")
    parser.add_argument("--state", type=Path, default=Path("build/bench/state"), help="where mapped weights go")
    parser.add_argument("--prompt", type=int, default=256, help="tokens to prefill (default 256)")
    parser.add_argument("--decode", type=int, default=32, help="tokens to decode (default 32)")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds, after one that warms up (default 5)")
    runtimes.add_options(parser)
    options = parser.parse_args()
    print(compare(options))


def compare(options: argparse.Namespace) -> str:
    """Run all rounds and return the medians per model and their ratios to llama.cpp, as one line of JSON."""
    context = options.prompt + options.decode + 1
    workers, bundles = load(options, context)
    rounds: dict[str, list[dict[str, float]]] = {worker.name: [] for worker in workers}
    bandwidths = []
    draw = random.Random(0)
    vocab_size = min(int(worker.loaded["vocab_size"]) for worker in workers)
    for index in range(options.rounds + 1):
        prompt = [draw.randrange(14, vocab_size) for _ in range(options.prompt)]
        bandwidths.append(read_bandwidth(options.threads))
        for worker in workers:
            took = worker.do("answer", prompt=prompt, count=options.decode)
            if index:  # the first round warms up caches and page tables
                print(f"round {index} {worker.name}: {took}", file=sys.stderr)
                rounds[worker.name].append(took)
    for worker in workers:
        worker.close()
    models = {worker.name: summary(worker, rounds[worker.name], options) for worker in workers}
    for name, opened in bundles.items():
        models[name] |= against_ceiling(opened, rounds[name], bandwidths[1:], options)
    settings = {"prompt": options.prompt, "decode": options.decode, "rounds": options.rounds}
    ratios = against_llama(models)
    return runtimes.report(
        "decode",
        workers,
        options,
        **settings,
        read_bandwidth=round(median(bandwidths[1:])),
        models=models,
        over_llama_cpp=ratios,
    )


def against_llama(models: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the ratios of each model's figures to llama.cpp's, where it was measured."""
    base = models.get(runtimes.LLAMA)
    return {
        name: {key: round(row[key] / base[key], 2) for key in ("prefill_tok_s", "decode_tok_s", "cpu_s")}
        for name, row in models.items()
        if base and row is not base
    }


def load(options: argparse.Namespace, context: int) -> tuple[list[Worker], dict[str, Bundle]]:
    """Return the loaded models, and the bundles among them by name."""
    workers, bundles = [], {}
    for entry in [*options.bundle, *options.warm]:
        name, path = entry.split("=", 1)
        workers.append(runtimes.bundle(name, Path(path), options, context=context))
        bundles[name] = Bundle.open(Path(path))
    for entry in options.warm:
        name, path = entry.split("=", 1)
        prepacked = warmed(path, options.state)
        workers.append(runtimes.bundle(f"{name} mapped", Path(path), options, context=context, prepacked=prepacked))
        bundles[f"{name} mapped"] = bundles[name]
    return [*workers, *runtimes.others(options, context=context)], bundles


def warmed(path: str, state: Path) -> str:
    """Return the folder of the weights that `edge-assistant warm` writes for this processor."""
    command = [sys.executable, "-m", "edge_assistant.cli", "warm", "--model", str(Path(path).resolve()), "--json"]
    environment = {**os.environ, "XDG_STATE_HOME": str(state.resolve())}
    report = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    print(report.strip(), file=sys.stderr)
    return str(json.loads(report)["saved"])


def summary(worker: Worker, rounds: list[dict[str, float]], options: argparse.Namespace) -> dict[str, float]:
    """Return medians: tokens per second, seconds, and MiB held after the last round."""
    last = rounds[-1]
    return {
        "prefill_tok_s": round(options.prompt / median(took["first_s"] for took in rounds), 2),
        "decode_tok_s": round(options.decode / median(took["rest_s"] for took in rounds), 2),
        "cpu_s": round(median(took["cpu_s"] for took in rounds), 3),
        "cpu_share": round(median(took["cpu_s"] / took["wall_s"] for took in rounds), 2),
        "load_s": round(worker.loaded["wall_s"], 2),
        "load_cpu_s": round(worker.loaded["cpu_s"], 2),
        "anonymous_mib": round(last["anonymous"] / MIB),
        "file_mib": round(last["file"] / MIB),
    }


def against_ceiling(
    bundle: Bundle, rounds: list[dict[str, float]], bandwidths: list[float], options: argparse.Namespace
) -> dict[str, float]:
    """Return a bundle's cache in MiB, and how fast it could decode by the bytes a second that each round read."""
    manifest, length = bundle.manifest, options.prompt + options.decode // 2
    read = weight_bytes_per_token(manifest) + cache_bytes_per_token(manifest, length)
    ceilings = [bandwidth / read for bandwidth in bandwidths]
    speeds = [options.decode / took["rest_s"] for took in rounds]
    return {
        "cache_mib": round(manifest.cache_size.of(options.prompt + options.decode + 1) / MIB),
        "ceiling_tok_s": round(median(ceilings), 2),
        "ceiling_share": round(median(speed / most for speed, most in zip(speeds, ceilings, strict=True)), 3),
    }


if __name__ == "__main__":
    main()
