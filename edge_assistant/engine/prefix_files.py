"""Prefixes on disk: the first answer after a restart reads what an earlier process has computed.

A file is one whole prefix, named by the hash of its tokens, in a folder that is named by what the rows depend on: the
bundle with its cache, the adapter if there is one, the version of onnxruntime, and a GPU if it computed. So another
bundle, or another setting, finds nothing of it.

    b"EAPREFIX"  length of the header as 8 bytes, little endian
    header       JSON: version, type, shape [n_layers, 2, n_kv_heads, n, head_dim], sha256
    tokens       int64 [n]
    rows         mapped

The hash is of the folder's name, of type and shape, and of all that follows: a file that was moved is none of its
bundle's, and no header says of rows what they are not. A file is written beside and renamed when it is complete. One
that is not what its header says is deleted with a warning, and the prefix is computed anew. The folder stays within a
budget in bytes; the file that was not used for longest goes first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import numpy as np

from edge_assistant.engine.cut import common

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)
_MAGIC: Final = b"EAPREFIX"
_VERSION: Final = 2
_SUFFIX: Final = ".prefix"
_PARTIAL: Final = ".partial"
_LONGEST_HEADER: Final = 4096
_DIMENSIONS: Final = 5


class _DamagedError(Exception):
    """A file is not what its header says."""


@dataclass(slots=True)
class _File:
    """A file whose hash was found right: its tokens [n], and its rows, mapped."""

    path: Path
    tokens: NDArray[np.int64]
    rows: NDArray[Any]
    used_ns: int
    """When it was used last, as was known when it was read."""


class PrefixFiles:
    """The prefixes of one bundle in one folder."""

    def __init__(self, folder: Path, fingerprint: str, budget: int) -> None:
        """Read what lies in `folder`, so that the first prompt need not wait for it.

        What other fingerprints have left there is deleted when the budget needs the room.
        """
        self._top, self._folder, self._budget = folder, folder / fingerprint, budget
        self._fingerprint = fingerprint
        self._files: list[_File] = []
        self._writing: threading.Thread | None = None
        for left in self._folder.glob(f"*{_PARTIAL}"):  # by one that was killed; one that writes just now warns
            with suppress(OSError):
                left.unlink()
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            try:
                self._files.append(_read_file(path, fingerprint))
            except (_DamagedError, OSError) as error:
                _LOG.warning("%s is deleted, its prefix will be computed anew: %s", path, error)
                with suppress(OSError):
                    path.unlink()

    def of(self, adapter: str) -> PrefixFiles:
        """Return the prefixes of the same bundle with an adapter, in the same budget, by the adapter's identity."""
        fingerprint = hashlib.sha256(f"{self._fingerprint} {adapter}".encode()).hexdigest()
        return PrefixFiles(self._top, fingerprint, self._budget)

    def latest(self) -> tuple[NDArray[np.int64], NDArray[Any]] | None:
        """Return the tokens [n] and the rows of the file that was used last, None where there is none."""
        last = max(self._files, key=lambda file: file.used_ns, default=None)
        return (last.tokens, last.rows) if last else None

    def find(self, tokens: NDArray[np.int64], longer_than: int) -> NDArray[Any] | None:
        """Return the rows of as many of the tokens [n] as a file holds, None where none holds more than so many."""
        best = max(self._files, key=lambda file: common(file.tokens, tokens), default=None)
        shared = common(best.tokens, tokens) if best else 0
        if best is None or shared <= longer_than:
            return None
        with suppress(OSError):  # it may have had to make room, and is mapped all the same
            os.utime(best.path)
        return best.rows[..., :shared, :]

    def keep(self, tokens: NDArray[np.int64], token_bytes: int, rows: Callable[[], NDArray[Any]]) -> None:
        """Write a prefix [n] that is not there yet, in a thread of its own; while it writes, others are left out."""
        if len(tokens) * (token_bytes + tokens.itemsize) > self._budget:
            return
        if any(common(file.tokens, tokens) == len(tokens) for file in self._files):
            return
        if self._writing and self._writing.is_alive():
            return
        writing = threading.Thread(target=self._write, args=(tokens, rows()), name="prefix-writer")
        try:
            writing.start()
        except RuntimeError as error:  # the system has no room for another
            _warn(tokens, error)
        else:
            self._writing = writing

    def close(self) -> None:
        """Wait until what is being written is on disk."""
        if self._writing:
            self._writing.join()

    def _write(self, tokens: NDArray[np.int64], rows: NDArray[Any]) -> None:
        path = self._folder / f"{hashlib.sha256(tokens.tobytes()).hexdigest()}{_SUFFIX}"
        # Of its own name: another process may be writing the same prefix.
        partial = path.with_suffix(f".{uuid4().hex}{_PARTIAL}")
        head = _head(self._fingerprint, tokens, rows)
        size = len(head) + tokens.nbytes + rows.nbytes
        if size > self._budget:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._make_room(size)
            # A file that is mapped takes its space on the disk even where it was deleted.
            self._files = [file for file in self._files if file.path.exists()]
            _write_file(partial, head, tokens, rows)
            partial.replace(path)
            self._files.append(_read_file(path, self._fingerprint))
        except (_DamagedError, OSError) as error:
            with suppress(OSError):
                partial.unlink()
            _warn(tokens, error)

    def _make_room(self, size: int) -> None:
        """Delete what was not used for longest, of every bundle's, until so many bytes fit the budget."""
        found: list[tuple[os.stat_result, Path]] = []
        for path in self._top.glob("*/*"):
            if path.suffix in (_SUFFIX, _PARTIAL):
                with suppress(FileNotFoundError):  # another writer may just have renamed or deleted it
                    found.append((path.stat(), path))
        held = sum(stat.st_size for stat, _ in found)
        for stat, path in sorted(found, key=lambda pair: pair[0].st_mtime_ns):
            if held + size <= self._budget:
                return
            path.unlink(missing_ok=True)
            held -= stat.st_size


def _warn(tokens: NDArray[np.int64], error: Exception) -> None:
    _LOG.warning("a prefix of %d tokens is not kept on disk: %s", len(tokens), error)


def _head(fingerprint: str, tokens: NDArray[np.int64], rows: NDArray[Any]) -> bytes:
    """Return what stands in a file before the tokens."""
    header = {
        "version": _VERSION,
        "type": rows.dtype.name,
        "shape": rows.shape,
        "sha256": _sha256(fingerprint, tokens, rows),
    }
    text = json.dumps(header).encode()
    return _MAGIC + len(text).to_bytes(8, "little") + text


def _write_file(path: Path, head: bytes, tokens: NDArray[np.int64], rows: NDArray[Any]) -> None:
    with path.open("wb") as file:
        file.write(head)
        file.write(tokens.data)
        file.write(rows.data)
        file.flush()
        os.fsync(file.fileno())


def _read_file(path: Path, fingerprint: str) -> _File:
    """Map a file of the folder of this name; _DamagedError where it is not what its header says."""
    header, start = _read_header(path)
    tokens = np.fromfile(path, np.int64, header.n_tokens, offset=start)
    rows = np.memmap(path, header.dtype, "r", start + tokens.nbytes, header.shape)
    if _sha256(fingerprint, tokens, rows) != header.sha256:
        raise _DamagedError("its hash is not the one in its header")
    return _File(path, tokens, rows, path.stat().st_mtime_ns)


@dataclass(frozen=True, slots=True)
class _Header:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    sha256: str

    @property
    def n_tokens(self) -> int:
        return self.shape[-2]


def _read_header(path: Path) -> tuple[_Header, int]:
    """Return the header of a file whose size it agrees with, and where what follows begins."""
    with path.open("rb") as file:
        start = file.read(len(_MAGIC) + 8)
        size = int.from_bytes(start[len(_MAGIC) :], "little")
        text = file.read(size) if start.startswith(_MAGIC) and size < _LONGEST_HEADER else b""
    try:
        raw = json.loads(text)
        header = _Header(np.dtype(raw["type"]), tuple(map(int, raw["shape"])), raw["sha256"])
        if header.dtype.hasobject or len(header.shape) != _DIMENSIONS or min(header.shape) < 1:
            raise ValueError("these are no rows")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, SyntaxError) as error:  # numpy's the last
        raise _DamagedError("it has no header") from error
    if raw.get("version") != _VERSION:
        raise _DamagedError(f"its version is {raw.get('version')}")
    after = len(start) + size
    whole = after + 8 * header.n_tokens + int(np.prod(header.shape)) * header.dtype.itemsize
    if path.stat().st_size != whole:
        raise _DamagedError(f"it has {path.stat().st_size} bytes, not {whole}")
    return header, after


def _sha256(fingerprint: str, tokens: NDArray[np.int64], rows: NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{fingerprint} {rows.dtype.str} {rows.shape}".encode())
    digest.update(tokens.data)
    digest.update(rows.data)
    return digest.hexdigest()
