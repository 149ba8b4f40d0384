"""Puts a whole folder in the place of another, and recovers what was killed between the two renames that this takes.

    NAME  .NAME.old      what a kill leaves            what `recover` does
    old   -              nothing has been done yet     nothing
    -     old            the old one stepped aside     it goes back
    new   old            the new one has its name      the old one is removed

The new one is whole before the first rename, with its files on the disk.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from edge_assistant.bundle.folder import MANIFEST_FILE


def put_in_place(folder: Path, out: Path) -> None:
    """Give a whole folder its name; a bundle that has it steps aside first and is then removed.

    Raises OSError, and the bundle that stepped aside has its name again, as it has after an interrupt.
    """
    old = aside(out)
    stepped_aside = out.exists()
    if stepped_aside:
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    try:
        folder.rename(out)
    except BaseException:
        if stepped_aside and not os.path.lexists(out):
            old.rename(out)
        raise
    sync(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(out: Path) -> None:
    """Put back or remove what was left aside; nobody else may be putting a folder there meanwhile."""
    old = aside(out)
    if not old.is_dir():
        return
    if not os.path.lexists(out):
        old.rename(out)
    elif (out / MANIFEST_FILE).is_file():
        shutil.rmtree(old, ignore_errors=True)


def aside(out: Path) -> Path:
    """Return where a bundle steps aside to."""
    out = out.absolute()
    return out.parent / f".{out.name}.old"


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
