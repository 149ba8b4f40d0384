"""What a process holds (Linux).

Anonymous memory is the process's own and must fit the board. Memory of mapped files the system can take back, and read
again from the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Resident:
    """Resident bytes of a process."""

    anonymous: int
    file: int


def resident(pid: int | str = "self") -> Resident:
    """Return what a process holds now, from /proc/PID/status; KeyError where it has just ended."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    anonymous, file = (int(fields[name].split()[0]) << 10 for name in ("RssAnon", "RssFile"))
    return Resident(anonymous, file)


def size(count: float) -> str:
    """Return bytes as a person reads them."""
    for unit, bytes_each in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= bytes_each:
            return f"{count / bytes_each:.2f} {unit}"
    return f"{count} B"
