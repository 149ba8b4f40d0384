"""Gives a bundle its name: whatever happens, its folder appears whole or not at all.

All is written into `.NAME.partial` beside it, made durable, and renamed at the end. What a killed or interrupted export
left there is gone on with where it was the very same work, by its fingerprint, and emptied otherwise. Files with a dot
before their name are the exporter's own notes; they are gone when the folder gets its name.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from edge_assistant.errors import OutputBusyError, OutputExistsError, OutputSpaceError, OutputWriteError

_FINGERPRINT: Final = ".fingerprint"
# For the small files of a bundle.
_SPARE: Final = 64 << 20


def check_output(out: Path, known: Set[str], *, overwrite: bool) -> None:
    """Refuse a folder that is there already; one that holds nothing but `known` names may be overwritten.

    Raises:
        OutputExistsError
        OutputWriteError: The system does not let it be looked at.
    """
    try:
        is_link = out.is_symlink()
        if not is_link and not out.exists():
            return
        names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    except OSError as error:
        raise OutputWriteError(out, None, error) from error
    strangers = sorted(names - known)
    # A link would become a folder, and what it leads to would stay.
    if strangers or not overwrite or is_link:
        raise OutputExistsError(out, strangers=strangers, overwritable=not is_link)


def check_space(out: Path, needed: int) -> None:
    """Refuse a disk that cannot take so many bytes; what a killed export has taken already counts as free.

    Raises:
        OutputSpaceError
    """
    there = next(parent for parent in out.absolute().parents if parent.exists())
    left = [file.stat().st_blocks * 512 for file in out.with_name(f".{out.name}.partial").glob("*")]
    free = shutil.disk_usage(there).free + sum(left)
    if free < needed + _SPARE:
        raise OutputSpaceError(out, needed + _SPARE, free)


@contextmanager
def partial_folder(out: Path, fingerprint: str = "") -> Iterator[Path]:
    """Give a folder beside `out`, which is locked while it is used and removed unless it was published.

    With a fingerprint, what an export of the same one left is still in it, and an interrupt leaves what is finished.
    """
    folder = out.with_name(f".{out.name}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise OutputWriteError(out, None, error) from error
    kept = False
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputBusyError(out) from error
        try:
            _prepare(folder, fingerprint)
            yield folder
        except KeyboardInterrupt:
            kept = bool(fingerprint) and bool(_notes(folder))
            raise
        finally:
            if not kept:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _prepare(folder: Path, fingerprint: str) -> None:
    """Empty a folder that is not of this work."""
    note = folder / _FINGERPRINT
    if fingerprint and note.is_file() and note.read_text(encoding="utf-8") == fingerprint:
        return
    for stale in folder.iterdir():
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    if fingerprint:
        replace_file(note, fingerprint.encode())


def _notes(folder: Path) -> list[Path]:
    """Return the notes of what is finished."""
    return [path for path in folder.glob(".*") if path.name != _FINGERPRINT and path.stat().st_size]


def publish(folder: Path, out: Path) -> None:
    """Give the finished folder its name; a bundle that had it steps aside first and is then removed."""
    for note in folder.glob(".*"):
        note.unlink()
    _sync_folder(folder)
    old = out.with_name(f".{out.name}.old")
    stepped_aside = out.exists()
    if stepped_aside:
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    try:
        folder.rename(out)
    except OSError:
        if stepped_aside:
            old.rename(out)
        raise
    _sync_folder(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def replace_file(path: Path, content: bytes) -> None:
    """Replace a small file, which is at every moment either the old one or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        write_file(partial, content)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_file(path: Path, content: bytes) -> None:
    """Write a file and make it durable."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Make a file durable that another hand has written."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file and make it durable."""
    write_file(path, (json.dumps(content, indent=2) + "\n").encode())


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
