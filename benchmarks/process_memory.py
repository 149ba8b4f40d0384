"""What a process holds: resident memory by kind, and the peak over a command's whole life (Linux)."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Resident:
    """Resident bytes: `anonymous` is the heap (it must fit the board's RAM), `file` can be dropped and read again."""

    anonymous: int
    file: int


def resident(pid: int | str = "self") -> Resident:
    """Return what the process holds now, from /proc/PID/status."""
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in {"RssAnon", "RssFile"}:
            fields[key] = int(value.split()[0]) * 1024
    return Resident(fields["RssAnon"], fields["RssFile"])


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
