"""Print how much memory is held while a cache is filled again and again, as JSON: run by test_slide.py.

It is given a bundle. Memory is what the process holds, mapped files apart, at every capacity's worth of tokens.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from itertools import chain
from time import sleep

import numpy as np
import psutil

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.engine import Engine, Keep, SamplingParams, kv_cache
from edge_assistant.engine.evict import Evictor

CAPACITY, TIMES = 256, 14
MOMENTS, APART_S = 5, 0.01
SYSTEM, TURN, ANSWER = 16, 24, 8


def held() -> int:
    """Return what is resident at the least moment of some: the engine may be in a step, which gives back what it takes.

    The mapped pages of files are left out, which come and go, as do freed ones until a trim.
    """
    gc.collect()
    return min(resident() for _ in range(MOMENTS))


def resident() -> int:
    sleep(APART_S)
    ctypes.CDLL(None).malloc_trim(0)
    memory = psutil.Process().memory_info()
    return memory.rss - memory.shared


class Counted(Evictor):
    """Counts what it does."""

    evictions = 0

    def remove(self, start: int, end: int, length: int) -> None:
        Counted.evictions += 1
        super().remove(start, end, length)


kv_cache.Evictor = Counted


def answer(engine: Engine, prompt: list[int]) -> list[int]:
    """Write one long answer; return the memory at each capacity."""
    params = SamplingParams(max_tokens=TIMES * CAPACITY, overflow="slide")
    return [held() for number, _ in enumerate(engine.generate(prompt, params), 1) if number % CAPACITY == 0]


def conversation(engine: Engine, ids: np.ndarray) -> list[int]:
    """Hold a conversation whose prompt is the system's text and as many of the last turns as fit."""
    system, turns, sizes, read = list(ids[:SYSTEM]), [], [], 0
    for start in range(SYSTEM, len(ids) - TURN, TURN):
        turns.append(list(ids[start : start + TURN]))
        while len(system) + sum(map(len, turns)) + ANSWER > CAPACITY:
            turns.pop(0)
        prompt = [*system, *chain(*turns)]
        turns[-1] += engine.generate(prompt, SamplingParams(max_tokens=ANSWER), keep=Keep(len(prompt)))
        read += len(turns[-1])
        if read >= CAPACITY:
            sizes.append(held())
            read = 0
    return sizes


def main() -> None:
    bundle = Bundle.open(sys.argv[1])
    budget = bundle.manifest.cache_size.of(CAPACITY)
    settings = EngineSettings(threads=1, sequences=1, cache_reuse=16, prefix_bytes=0, kv_cache_bytes=budget)
    ids = np.random.default_rng(0).integers(14, 270, TIMES * CAPACITY)
    with Engine.load(bundle, settings) as engine:
        answering = answer(engine, list(ids[:CAPACITY]))
        conversing = conversation(engine, ids)
    print(json.dumps({"evictions": Counted.evictions, "answer": answering, "conversation": conversing}))


main()
