"""Prefill and decode speed, memory and load time of bundles beside llama.cpp, in one alternating run.

Every model stays loaded in a process of its own; in each round each of them prefills and decodes the same number
of tokens, one after the other, so that a noisy machine is noisy for all. Medians over the rounds; ratios against
llama.cpp. Neither runtime spins while it waits. The last line is one JSON object.

    python benchmarks/decode.py --bundle int4-b32=PATH --bundle int4-b128=PATH --gguf twin.gguf
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine
from process_memory import MIB

from edge_assistant.device.memory import resident

LLAMA = "llama.cpp"


class Runner(Protocol):
    """One loaded model: feeds a prompt and decodes greedily; returns the seconds of each part."""

    vocab_size: int

    def run(self, prompt: list[int], decode: int) -> tuple[float, float]:
        """Return the seconds of the prefill, first token included, and of `decode` more tokens."""


class BundleRunner:
    """A bundle in this project's engine."""

    def __init__(self, path: Path, context: int, threads: int) -> None:
        from edge_assistant.bundle import Bundle
        from edge_assistant.config import EngineSettings
        from edge_assistant.engine import Engine

        bundle = Bundle.open(path)
        self.vocab_size = bundle.manifest.architecture.vocab_size
        budget = bundle.manifest.cache_size.of(context)
        self._engine = Engine.load(bundle, EngineSettings(kv_cache_bytes=budget, threads=threads))

    def run(self, prompt: list[int], decode: int) -> tuple[float, float]:
        """Return the seconds of the prefill, first token included, and of `decode` more tokens."""
        from edge_assistant.engine import SamplingParams

        generation = self._engine.generate(prompt, SamplingParams(max_tokens=decode + 1))
        for _ in generation:
            pass
        return generation.timing.prefill_s, generation.timing.decode_s


class LlamaRunner:
    """The GGUF twin in llama.cpp."""

    def __init__(self, path: Path, context: int, threads: int) -> None:
        from llama_cpp import Llama

        self._llama = Llama(
            str(path), n_ctx=context, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self.vocab_size = self._llama.n_vocab()

    def run(self, prompt: list[int], decode: int) -> tuple[float, float]:
        """Return the seconds of the prefill, first token included, and of `decode` more tokens."""
        self._llama.reset()
        started = time.perf_counter()
        self._llama.eval(prompt)
        token = self._llama.sample(temp=0.0)
        prefilled = time.perf_counter()
        for _ in range(decode):
            self._llama.eval([token])
            token = self._llama.sample(temp=0.0)
        return prefilled - started, time.perf_counter() - prefilled


def work(kind: str, path: Path, context: int, threads: int) -> None:
    """Load one model, say so, then answer each JSON line on standard input with one on standard output."""
    started = time.perf_counter()
    runner: Runner = (LlamaRunner if kind == LLAMA else BundleRunner)(path, context, threads)
    print(json.dumps({"load_s": time.perf_counter() - started, "vocab_size": runner.vocab_size}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        prefill_s, decode_s = runner.run(task["prompt"], task["decode"])
        held = resident()
        reply = {"prefill_s": prefill_s, "decode_s": decode_s, "anonymous": held.anonymous, "file": held.file}
        print(json.dumps(reply), flush=True)


class Worker:
    """A process that holds one model."""

    def __init__(self, name: str, path: Path, options: argparse.Namespace) -> None:
        self.name = name
        # OpenMP threads of llama.cpp sleep while they wait, as onnxruntime's do here.
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
        arguments = ["--worker", name, str(path), "--context", str(options.context), "--threads", str(options.threads)]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.loaded = self._reply()
        self.rounds: list[dict[str, float]] = []

    def run(self, prompt: list[int], decode: int) -> None:
        """Take one turn and keep its figures."""
        assert self._process.stdin is not None
        print(json.dumps({"prompt": prompt, "decode": decode}), file=self._process.stdin, flush=True)
        self.rounds.append(self._reply())

    def close(self) -> None:
        """Let the process end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def summary(self, prompt: int, decode: int) -> dict[str, float]:
        """Return medians: tokens per second, seconds to load, MiB held after the last round."""
        last = self.rounds[-1]
        return {
            "prefill_tok_s": round(prompt / statistics.median(r["prefill_s"] for r in self.rounds), 2),
            "decode_tok_s": round(decode / statistics.median(r["decode_s"] for r in self.rounds), 2),
            "load_s": round(self.loaded["load_s"], 2),
            "anonymous_mib": round(last["anonymous"] / MIB),
            "file_mib": round(last["file"] / MIB),
        }

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: the worker ended with status {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        return reply


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds and return the medians per model and their ratios to llama.cpp."""
    models = [(name, Path(path)) for name, path in (entry.split("=", 1) for entry in options.bundle)]
    if options.gguf:
        models.append((LLAMA, options.gguf))
    workers = []
    for name, path in models:
        print(f"loading {name} from {path}", file=sys.stderr)
        workers.append(Worker(name, path, options))
    draw = random.Random(0)
    vocab_size = min(int(worker.loaded["vocab_size"]) for worker in workers)
    for index in range(options.rounds + 1):
        prompt = [draw.randrange(3, vocab_size) for _ in range(options.prompt)]
        for worker in workers:
            worker.run(prompt, options.decode)
            if index == 0:
                worker.rounds.clear()  # the first round warms up caches and page tables
            else:
                last = worker.rounds[-1]
                print(f"round {index} {worker.name}: {last}", file=sys.stderr)
    results = {worker.name: worker.summary(options.prompt, options.decode) for worker in workers}
    for worker in workers:
        worker.close()
    report: dict[str, Any] = {"prompt": options.prompt, "decode": options.decode, "rounds": options.rounds}
    report["models"] = results
    if LLAMA in results:
        base = results[LLAMA]
        report["ratios_to_llama.cpp"] = {
            name: {key: round(row[key] / base[key], 2) for key in ("prefill_tok_s", "decode_tok_s")}
            for name, row in results.items()
            if name != LLAMA
        }
    return report


def main() -> None:
    """Read the command line and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", action="append", default=[], metavar="NAME=PATH", help="a bundle; may be repeated")
    parser.add_argument("--gguf", type=Path, help="the GGUF twin, made by gguf_twin.py")
    parser.add_argument("--prompt", type=int, default=256, help="tokens to prefill (default 256)")
    parser.add_argument("--decode", type=int, default=32, help="tokens to decode (default 32)")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds, after one that warms up (default 5)")
    parser.add_argument("--context", type=int, default=512, help="tokens of KV cache (default 512)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each runtime (default: all)")
    parser.add_argument("--worker", nargs=2, metavar=("KIND", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker[0], Path(options.worker[1]), options.context, options.threads)
        return
    report = {**compare(options), "machine": machine(*(["llama-cpp-python"] if options.gguf else []))}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
