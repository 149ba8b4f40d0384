"""`bench`: the speed and memory of a model on this machine."""

from __future__ import annotations

import json
import random
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from edge_assistant.bundle import SEEN_FILE, Bundle
from edge_assistant.cli.common import adapter_file, settings_and_model
from edge_assistant.config import state_directory
from edge_assistant.engine import Engine, SamplingParams

if TYPE_CHECKING:
    from argparse import Namespace


def bench(args: Namespace) -> int:
    """Read a prompt of random tokens and write an answer; a first, short answer warms the model up."""
    settings, path = settings_and_model(args)
    started = perf_counter()
    bundle = Bundle.open(path, state_directory() / SEEN_FILE)
    with Engine.load(bundle, settings.engine) as engine:
        load_s = perf_counter() - started
        file = adapter_file(args, settings)
        adapter = engine.load_adapter(file) if file else None
        ids = random.Random(0)
        prompt = [ids.randrange(bundle.manifest.architecture.vocab_size) for _ in range(args.prompt_tokens)]
        list(engine.generate(prompt[-1:], SamplingParams(max_tokens=2), adapter=adapter))
        answer = engine.generate(prompt, SamplingParams(max_tokens=args.new_tokens), adapter=adapter)
        for _ in answer:
            pass
        timing, usage = answer.timing, answer.usage
        result = {
            "model": bundle.manifest.name,
            "load_s": round(load_s, 3),
            "prefill_tokens_per_s": round((usage.prompt_tokens - usage.cached_tokens) / timing.prefill_s, 1),
            "decode_tokens_per_s": round((usage.completion_tokens - 1) / timing.decode_s, 1),
            **({"adapter_bytes": adapter.nbytes} if adapter else {}),
            **_resident_bytes(),
        }
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name + ':':22}{value}")
    return 0


def _resident_bytes() -> dict[str, int]:
    """Return the process's resident memory: its own, and that of mapped files, which the system can take back."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines())
    kib = {"anonymous_bytes": fields["RssAnon"], "file_bytes": fields["RssFile"]}
    return {name: int(value.split()[0]) << 10 for name, value in kib.items()}
