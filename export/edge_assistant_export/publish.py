"""Gives a bundle its name: whatever happens, its folder appears whole or not at all.

All is written into `.NAME.partial` beside it, made durable, and renamed at the end. A folder that a killed export left
behind is emptied and used again.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_assistant.errors import OutputBusyError, OutputExistsError


def check_output(out: Path, known: Set[str], *, overwrite: bool) -> None:
    """Refuse a folder that is there already; one that holds nothing but `known` names may be overwritten.

    Raises:
        OutputExistsError
    """
    if out.exists():
        names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
        strangers = sorted(names - known)
        if strangers or not overwrite:
            raise OutputExistsError(out, strangers=strangers)


@contextmanager
def partial_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder beside `out`, which is locked while it is used and removed unless it was published."""
    folder = out.with_name(f".{out.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputBusyError(out) from error
        try:
            for stale in folder.iterdir():
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def publish(folder: Path, out: Path) -> None:
    """Give the finished folder its name; a bundle that had it steps aside first and is then removed."""
    _sync_folder(folder)
    old = out.with_name(f".{out.name}.old")
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    folder.rename(out)
    _sync_folder(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def replace_file(path: Path, content: bytes) -> None:
    """Replace a small file, which is at every moment either the old one or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    write_file(partial, content)
    partial.replace(path)
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
