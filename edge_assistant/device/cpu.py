"""What the processor can do, from /proc/cpuinfo.

onnxruntime multiplies int4 weights in int8 where the processor has the instructions, and where it has not it computes
in float32 whatever the bundle asks for, many times slower and with other last digits, and does not say so.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

_NEEDED: Final = {"aarch64": "asimddp", "x86_64": "avx2"}
"""What int8 products take, as the kernel calls it: ARM's dot products, and what onnxruntime has kernels for on x86."""
_TOLD: Final = {"aarch64": ("asimddp", "i8mm"), "x86_64": ("avx2", "avx_vnni", "avx512_vnni")}
_FEATURES: Final = ("Features", "flags")
_MODEL: Final = ("model name", "CPU implementer", "CPU part")
"""x86 has a name, ARM numbers: 0x41 0xd0b is a Cortex-A76."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """A processor as its kernel describes it."""

    machine: str
    """`aarch64`, `x86_64`: as `uname -m` prints."""
    model: str
    features: tuple[str, ...]
    """Those of `asimddp` (dot products) and `i8mm`, or of `avx2`, `avx_vnni` and `avx512_vnni`, that every core has."""
    cores: int
    """Physical cores; where the kernel does not say which are, all that it counts."""

    @property
    def multiplies_int8(self) -> bool:
        """Whether accuracy level 4 means what it says here; unknown machines are given the benefit of the doubt."""
        return self.machine not in _NEEDED or _NEEDED[self.machine] in self.features

    @property
    def float32_warning(self) -> str | None:
        """What to tell the owner of a processor without int8 products, None for all others."""
        if self.multiplies_int8:
            return None
        return (
            f"this processor ({self.model}) lacks {_NEEDED[self.machine]}: onnxruntime computes the int8 products of "
            "this model in float32, many times slower and with slightly other answers. Take a smaller model, or a "
            "board whose processor has it, such as a Raspberry Pi 5"
        )

    def __str__(self) -> str:
        """Tell one processor from others: a packed file and a measurement are of one alone."""
        return " ".join((self.machine, self.model, *self.features, f"x{self.cores}"))


def parse_cpuinfo(text: str, machine: str) -> Cpu:
    """Read /proc/cpuinfo's text; what is not there is left empty, and cores are at least 1."""
    cores = [dict(_pairs(block)) for block in text.split("\n\n") if "processor" in block]
    models = sorted({" ".join(core[key] for key in _MODEL if key in core) for core in cores})
    lists = [set(core[key].split()) for core in cores for key in _FEATURES if key in core]
    common = set.intersection(*lists) if lists else set()
    physical = {(core.get("physical id"), core.get("core id")) for core in cores}
    return Cpu(
        machine,
        ", ".join(filter(None, models)) or "unknown",
        tuple(name for name in _TOLD.get(machine, ()) if name in common),
        max(len(cores) if (None, None) in physical else len(physical), 1),
    )


@cache
def this_cpu() -> Cpu:
    """Return the processor this runs on, with the cores that this process may use."""
    cpu = parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"), platform.machine())
    return Cpu(cpu.machine, cpu.model, cpu.features, min(cpu.cores, len(os.sched_getaffinity(0))))


def _pairs(block: str) -> list[tuple[str, str]]:
    lines = (line.partition(":") for line in block.splitlines())
    return [(key.strip(), value.strip()) for key, _, value in lines]
