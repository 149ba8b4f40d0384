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


def add_options(parser: ArgumentParser) -> None:
    """Add what names the models and their threads."""
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="for llama.cpp: the twin, made by gguf_twin.py")
    parser.add_argument("--genai", type=Path, metavar="DIR", help="for onnxruntime-genai: what its own builder made")
    parser.add_argument("--genai-python", type=Path, metavar="FILE", help="the Python that has onnxruntime-genai")
    add_threads(parser)


def add_threads(parser: ArgumentParser) -> None:
    """Add the number of threads."""
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each runtime (default: all)")


def bundle(name: str, path: Path, options: Namespace, **keywords: Any) -> Worker:
    """Load a bundle in this project's engine."""
    return Worker(name, "runner_bundle.py", path=str(path), threads=options.threads, **keywords)


def others(options: Namespace, **keywords: Any) -> list[Worker]:
    """Load the model in the other runtimes that the options name."""
    workers = []
    if options.gguf:
        workers.append(Worker(LLAMA, "runner_llama.py", path=str(options.gguf), threads=options.threads, **keywords))
    if options.genai:
        python = options.genai_python or "python"
        path = str(options.genai)
        workers.append(Worker(GENAI, "runner_genai.py", python, path=path, threads=options.threads, **keywords))
    return workers


def report(benchmark: str, workers: Iterable[Worker], **found: Any) -> str:
    """Return what a benchmark found as one line of JSON, with the runtimes and the machine."""
    named = {worker.name: worker.loaded["runtime"] for worker in workers}
    return json.dumps({"benchmark": benchmark, **found, "runtimes": named, "machine": machine()})
