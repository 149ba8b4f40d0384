"""The speed and memory of a model on this device, beside what the device's memory allows."""

from __future__ import annotations

import random
from time import perf_counter
from typing import TYPE_CHECKING, Any

from edge_assistant.device.cpu import this_cpu
from edge_assistant.device.memory import resident
from edge_assistant.engine import Engine, SamplingParams
from edge_assistant.engine.roofline import (
    cache_bytes_per_token,
    operator_shares,
    read_bandwidth,
    weight_bytes_per_token,
)

if TYPE_CHECKING:
    from pathlib import Path

    from edge_assistant.bundle import Bundle
    from edge_assistant.device.prepare import Prepared


def bench(
    bundle: Bundle, prepared: Prepared, prompt_tokens: int, new_tokens: int, adapter: Path | None = None
) -> dict[str, Any]:
    """Read a prompt of random tokens and write an answer, one token a step, with an adapter if one is named.

    Returns what was measured, by name: speeds are tokens a second, the bandwidth bytes a second, shares parts of 1:
    `ceiling_share` of the ceiling that is reached, `operators` of a decoded token's time by the type of operator. The
    roofline is that of the bundle alone; an adapter's matrices are small.
    """
    manifest = bundle.manifest
    ids = random.Random(0)
    prompt = [ids.randrange(manifest.architecture.vocab_size) for _ in range(prompt_tokens)]
    measured = _generate(bundle, prepared, prompt, new_tokens, adapter)
    bandwidth = read_bandwidth(prepared.settings.threads or this_cpu().cores)
    weights, cache = weight_bytes_per_token(manifest), cache_bytes_per_token(manifest, prompt_tokens + new_tokens // 2)
    ceiling = bandwidth / (weights + cache)
    return {
        "model": manifest.name,
        **measured,
        "read_bytes_per_s": round(bandwidth),
        "weight_bytes_per_token": weights,
        "cache_bytes_per_token": cache,
        "ceiling_tokens_per_s": round(ceiling, 1),
        "ceiling_share": round(measured["decode_tokens_per_s"] / ceiling, 3),
        "operators": {
            name: round(share, 4) for name, share in operator_shares(bundle, prepared.settings, prompt).items()
        },
    }


def _generate(
    bundle: Bundle, prepared: Prepared, prompt: list[int], new_tokens: int, file: Path | None
) -> dict[str, Any]:
    """Load, let a short answer warm the model up, and measure another, without guesses: those come in one read."""
    started = perf_counter()
    settings = prepared.settings.model_copy(update={"guesses": 0})
    with Engine.load(bundle, settings, prepacked=prepared.prepacked) as engine:
        load_s = perf_counter() - started
        adapter = engine.load_adapter(file) if file else None
        list(engine.generate(prompt[-1:], SamplingParams(max_tokens=2), adapter=adapter))
        answer = engine.generate(prompt, SamplingParams(max_tokens=new_tokens), adapter=adapter)
        for _ in answer:
            pass
        timing, usage, held = answer.timing, answer.usage, resident()
    return {
        "load_s": round(load_s, 3),
        "prefill_tokens_per_s": round((usage.prompt_tokens - usage.cached_tokens) / timing.prefill_s, 1),
        "decode_tokens_per_s": round((usage.completion_tokens - 1) / timing.decode_s, 1),
        **({"adapter_bytes": adapter.nbytes} if adapter else {}),
        "anonymous_bytes": held.anonymous,
        "file_bytes": held.file,
    }
