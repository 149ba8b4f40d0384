"""Which of onnxruntime's execution providers computes: what is wished for, where it is there and proves to work.

    auto       CUDA, else the CPU
    cuda       CUDA, else the CPU
    tensorrt   TensorRT with CUDA for what it does not know, else CUDA, else the CPU
    cpu        the CPU

"There" means little: the wheel for ARM names CUDA and holds no code for a Jetson Orin. So a provider counts once it has
run the operators that the bundle is made of, in its types and blocks, and was right (`probe.py`). Of attention CUDA's
provider has kernels for float16 and bfloat16 alone, over a cache of the same type or int8: so a bundle in float32 stays
on the CPU, and one that was exported with `--dtype float16` is what runs there.

No GPU was at hand: no kernel ever ran on one. Where the cache lies then is in `memory.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edge_assistant.config import EngineSettings

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
TENSORRT: Final = "TensorrtExecutionProvider"

Provider = tuple[str, dict[str, str]]
"""A provider's name and its options, as onnxruntime takes them."""
Probe = Callable[[tuple[Provider, ...]], str | None]
"""Runs operators on some providers and not on the CPU; returns why that cannot be, None where it can."""

_WISHES: Final = {"auto": (CUDA,), "cpu": (), "cuda": (CUDA,), "tensorrt": (TENSORRT, CUDA)}


@dataclass(frozen=True, slots=True)
class Choice:
    """The providers to load a graph with, the best first and the CPU last, and why others are not among them."""

    providers: tuple[Provider, ...]
    reasons: tuple[str, ...]

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU is to compute."""
        return self.providers[0][0] != CPU


def choose(settings: EngineSettings, available: Collection[str], probe: Probe) -> Choice:
    """Return the first provider that the settings wish for, that is `available` and that the probe finds to work."""
    reasons: list[str] = []
    for wish in _WISHES[settings.provider]:
        providers = _with_limits(wish, settings.gpu_memory_bytes)
        if missing := [name for name, _ in providers if name not in available]:
            if settings.provider != "auto":  # what nobody asked for may be missing in silence
                reasons.append(f"{wish} is not used: this onnxruntime is built without {', '.join(missing)}")
        elif (problem := probe(providers)) is None:
            return Choice((*providers, (CPU, {})), tuple(reasons))
        else:
            reasons.append(f"{wish} is not used: {problem}")
    return Choice(((CPU, {}),), tuple(reasons))


def _with_limits(wish: str, limit: int) -> tuple[Provider, ...]:
    """Return a provider and what stands in for it where it knows no kernel; together they keep to the limit."""
    if wish == CUDA:
        return ((CUDA, _cuda_options(limit)),)
    return (TENSORRT, {"trt_max_workspace_size": str(limit // 2)}), (CUDA, _cuda_options(limit - limit // 2))


def _cuda_options(limit: int) -> dict[str, str]:
    # By default the arena doubles, and would reach for twice what the weights take.
    return {"gpu_mem_limit": str(limit), "arena_extend_strategy": "kSameAsRequested"}
