"""What is finished of an export that may be killed.

Of the file of weights: which pieces, a line each, with the hash of what was written.

A killed export is gone on with where its journal ends. A power cut may leave a line whose bytes never reached the disk,
or a line that is torn itself: so a piece counts as finished only where the bytes that lie there have its line's hash.

Whatever else takes long to find, and is small: a JSON file each, which is there whole or not at all (`kept`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from edge_assistant_export.publish import replace_file

T = TypeVar("T")


def kept(path: Path, find: Callable[[], T]) -> T:
    """Return what a file keeps of an earlier run, else find it, and keep it there: lists, names and numbers."""
    if path.is_file():
        found: T = json.loads(path.read_bytes())
        return found
    found = find()
    replace_file(path, json.dumps(found).encode())
    return found


class Journal:
    """The journal of one folder; threads may write to it at the same time."""

    def __init__(self, path: Path) -> None:
        """Read what is there, and go on after it."""
        self._finished = dict(_read(path))
        self._file = path.open("a", encoding="utf-8")
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._file.write("\n")  # a line that was torn stays one of its own
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def hash_of(self, piece: str) -> str | None:
        """Return the hash that a piece had when it was finished, None where it was not."""
        return self._finished.get(piece)

    def add(self, piece: str, sha256: str) -> None:
        """Note that a piece is finished."""
        with self._lock:
            self._file.write(json.dumps([piece, sha256]) + "\n")
            self._file.flush()


def _read(path: Path) -> Iterator[tuple[str, str]]:
    """Give the pieces of a journal, without lines that were torn, or lost to a power cut."""
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(ValueError):
            piece, sha256 = json.loads(line)
            yield piece, sha256
