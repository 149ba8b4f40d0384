"""The peak of memory over a command's whole life (Linux)."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from typing import IO

import psutil

from edge_assistant.device.memory import resident

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Measured:
    """One command's run: seconds of wall clock and of CPU, and the peak of its process tree in bytes."""

    returncode: int
    seconds: float
    cpu_seconds: float
    peak_anonymous: int
    peak_resident: int


def measure(command: list[str], log: IO[str], interval: float = 0.05) -> Measured:
    """Run a command to its end, sampling the memory of it and its children every `interval` seconds."""
    started = time.perf_counter()
    process = psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    peak_anonymous = peak_resident = 0
    cpu_seconds = 0.0
    while process.poll() is None:
        anonymous = total = 0
        cpu = 0.0
        try:
            for member in [process, *process.children(recursive=True)]:
                held = resident(member.pid)
                anonymous += held.anonymous
                total += held.anonymous + held.file
                times = member.cpu_times()
                cpu += times.user + times.system
        except (psutil.NoSuchProcess, FileNotFoundError, KeyError):
            pass  # a process that ended between being listed and being read: the next sample is whole again
        peak_anonymous, peak_resident = max(peak_anonymous, anonymous), max(peak_resident, total)
        cpu_seconds = max(cpu_seconds, cpu)
        time.sleep(interval)
    return Measured(process.returncode, time.perf_counter() - started, cpu_seconds, peak_anonymous, peak_resident)
