"""The runtimes that a benchmark compares, by the options that all of them share."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from machine import machine
from worker import Worker

LLAMA = "llama.cpp"
GENAI = "onnxruntime-genai"
_OPENMP_SLEEPS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


def add_options(parser: ArgumentParser) -> None:
    """Add what names the models and their threads."""
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="for llama.cpp: the twin, made by gguf_twin.py")
    parser.add_argument("--genai", type=Path, metavar="DIR", help="for onnxruntime-genai: what its own builder made")
    parser.add_argument("--genai-python", type=Path, metavar="FILE", help="the Python that has onnxruntime-genai")
    add_threads(parser)


def add_threads(parser: ArgumentParser) -> None:
    """Add the number of threads, and how they wait for one another."""
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each runtime (default: all)")
    parser.add_argument("--spinning", action="store_true", help="let threads spin while they wait (default: sleep)")


def bundle(name: str, path: Path, options: Namespace, script: str = "runner_bundle.py", **keywords: Any) -> Worker:
    """Load a bundle in this project's engine."""
    return Worker(name, script, path=str(path), **_threads(options), **keywords)


def llama(path: Path, options: Namespace, name: str = LLAMA, **keywords: Any) -> Worker:
    """Load a GGUF file in llama.cpp, whose threads are OpenMP's."""
    environment = {} if options.spinning else _OPENMP_SLEEPS
    keywords["threads"] = options.threads
    return Worker(name, "runner_llama.py", environment=environment, path=str(path), **keywords)


def others(options: Namespace, **keywords: Any) -> list[Worker]:
    """Load the model in the other runtimes that the options name."""
    workers = []
    if options.gguf:
        workers.append(llama(options.gguf, options, **keywords))
    if options.genai:
        python, path = options.genai_python or "python", str(options.genai)
        workers.append(Worker(GENAI, "runner_genai.py", python, path=path, **_threads(options), **keywords))
    return workers


def _threads(options: Namespace) -> dict[str, Any]:
    return {"threads": options.threads, "spinning": options.spinning}


def report(benchmark: str, workers: Iterable[Worker], options: Namespace, **found: Any) -> str:
    """Return what a benchmark found as one line of JSON, with the runtimes, their threads and the machine."""
    named = {worker.name: worker.loaded["runtime"] for worker in workers}
    return json.dumps({"benchmark": benchmark, **_threads(options), **found, "runtimes": named, "machine": machine()})
