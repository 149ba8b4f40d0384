"""The roofline of decoding: no token is written faster than what it reads passes from memory to the processor.

    ceiling (tokens/s) = read bandwidth (bytes/s) / bytes read per token

A token reads the weights of every matrix that it passes once, of a mixture those of the experts that are routed to, and
the keys and values of all that it attends to. Take Mistral 7B in 4 bits and blocks of 128, that is 4.25 bits a weight,
at a context of 512 tokens with an int8 cache:

    7.1e9 weights * 4.25 / 8 + 512 * 65,536 = 3.8e9 bytes;  11e9 bytes/s / 3.8e9 bytes = 2.9 tokens/s

Where all of it fits the processor's cache, memory is not what is waited for, and the ceiling can be exceeded.
"""

from __future__ import annotations

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

import numpy as np

from edge_assistant.engine.kv_cache import KvCache
from edge_assistant.engine.session import Session
from edge_assistant.errors import ProfileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from edge_assistant.bundle import Bundle, Manifest
    from edge_assistant.config import EngineSettings

_BUFFER_BYTES: Final = 512 << 20
"""Many times the last cache of any board or workstation."""
_ROUNDS: Final = 5
_STEPS: Final = 4
_FLOAT32_BYTES: Final = 4


def read_bandwidth(threads: int, most_bytes: int = _BUFFER_BYTES) -> float:
    """Return the bytes a second that so many threads read from memory together, the best of a few rounds.

    The buffer takes a quarter of the memory that is available, and `most_bytes` at most.
    """
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    available = int(memory["MemAvailable"].split()[0]) << 10
    words = np.ones(max(min(most_bytes, available // 4) // 8, threads), np.uint64)  # ones: zeros would all be one page
    parts = np.array_split(words, threads)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_ROUNDS):
            started = perf_counter()
            list(pool.map(np.bitwise_or.reduce, parts))
            best = max(best, words.nbytes / (perf_counter() - started))
    return best


def weight_bytes_per_token(manifest: Manifest) -> int:
    """Return the bytes of the matrices that one token passes; of an embedding of its own it reads one row, left out."""
    shape = manifest.architecture
    queries, keys = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
    head = "embedding" if shape.tied_embedding else "lm_head"
    read = _matrix_bytes(manifest, head, shape.vocab_size, shape.hidden_size)
    for layer in range(shape.n_layers):
        at = f"layers.{layer}"
        read += _matrix_bytes(manifest, f"{at}.qkv", queries + 2 * keys, shape.hidden_size)
        read += _matrix_bytes(manifest, f"{at}.o", shape.hidden_size, queries)
        names = (f"{at}.experts", f"{at}.experts") if shape.n_experts else (f"{at}.gate_up", f"{at}.down")
        feed_forward = _matrix_bytes(manifest, names[0], 2 * shape.ffn_size, shape.hidden_size)
        feed_forward += _matrix_bytes(manifest, names[1], shape.hidden_size, shape.ffn_size)
        read += feed_forward * (shape.n_experts_per_token or 1)
        read += shape.n_experts * shape.hidden_size * _FLOAT32_BYTES  # the router
    return read


def cache_bytes_per_token(manifest: Manifest, length: int) -> int:
    """Return the bytes of keys and values that a token reads after `length` others."""
    shape = manifest.architecture
    per_position = 2 * shape.n_kv_heads * shape.head_dim * manifest.cache.item_bytes
    windows = (shape.window_of(layer) for layer in range(shape.n_layers))
    return per_position * sum(length if window is None else min(length, window) for window in windows)


def operator_shares(bundle: Bundle, settings: EngineSettings, prompt: list[int]) -> dict[str, float]:
    """Return which part of a decoded token's time each type of operator takes after a prompt, the greatest first.

    What is left of 1 is onnxruntime's own work between them. The model is loaded anew, for timing has its price.

    Raises:
        ProfileError: The disk of temporary files had no room for what onnxruntime noted.
    """
    with tempfile.TemporaryDirectory() as folder:
        cache = KvCache(bundle.manifest, len(prompt) + 1)
        session = Session(bundle, cache, settings, profile=Path(folder) / "profile")
        for chunk in session.chunks(np.asarray(prompt, np.int64)):
            session.run(chunk)
        for _ in range(_STEPS + 1):  # the first is not counted: it comes upon cold caches
            session.run(prompt[-1:])
            session.cache.rewind(len(prompt))  # the longest prompt leaves no room for more than one
        profile = session.end_profiling()
        try:
            events = json.loads(profile.read_bytes())
        except ValueError as error:
            raise ProfileError(profile) from error
        return shares(events, _STEPS)


def shares(events: Iterable[Mapping[str, Any]], runs: int) -> dict[str, float]:
    """Return from onnxruntime's profile which part of the last `runs` runs each type of operator took."""
    events = list(events)
    whole = sorted((event for event in events if event["name"] == "model_run"), key=lambda event: event["ts"])[-runs:]
    took: dict[str, int] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= whole[0]["ts"]:
            operator = event["args"]["op_name"]
            took[operator] = took.get(operator, 0) + event["dur"]
    total = sum(event["dur"] for event in whole)
    return {name: took[name] / total for name in sorted(took, key=lambda name: -took[name])}


def _matrix_bytes(manifest: Manifest, name: str, n_rows: int, row_size: int) -> int:
    """Return the bytes of a matrix as it is stored: weights in whole blocks, each with a scale, and zero points."""
    stored = manifest.quantization
    block, bits = stored.block_size_of(name), stored.bits_of(name)
    if block is None:
        return n_rows * row_size * stored.float_bits // 8
    blocks = -(-row_size // block)
    zero_points = -(-blocks * bits // 8) if stored.zero_points else 0
    return n_rows * (blocks * (block * bits // 8 + stored.float_bits // 8) + zero_points)
