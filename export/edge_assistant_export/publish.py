"""Gives a bundle its name: whatever happens, its folder appears whole or not at all.

All is written into `.NAME.partial` beside it, made durable, and renamed at the end. What a killed or interrupted export
left there is gone on with where it was the very same work, by its fingerprint, and emptied otherwise. Files with a dot
before their name are the exporter's own notes; they are gone when the folder gets its name.

A bundle that is replaced steps aside first; what a kill leaves of that, the next export of its name puts right.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from edge_assistant.bundle import check_path
from edge_assistant.bundle.in_place import aside, put_in_place, recover, sync
from edge_assistant.errors import OutputBusyError, OutputExistsError, OutputSpaceError, OutputWriteError

_FINGERPRINT: Final = ".fingerprint"
# For the small files of a bundle.
_SPARE: Final = 64 << 20


def check_output(out: Path, known: Set[str], *, overwrite: bool) -> None:
    """Refuse what cannot be made or is there already; a folder of nothing but `known` names may be overwritten.

    What was killed while it replaced one is recovered first.

    Raises:
        OutputExistsError
        PathEncodingError
        OutputWriteError: The system does not let it be looked at, or nothing be written beside it.
    """
    with _looking_at(out):
        _recover(out)
        _refuse_existing(out, known, overwrite=overwrite)


def check_file(out: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written or is there already.

    Raises:
        OutputExistsError
        PathEncodingError
        OutputWriteError: The system does not let it be looked at, or nothing be written beside it.
    """
    with _looking_at(out):
        is_folder = out.is_dir()
        if is_folder or (os.path.lexists(out) and not overwrite):
            raise OutputExistsError(out, overwritable=not is_folder)


@contextmanager
def _looking_at(out: Path) -> Iterator[None]:
    """Refuse a path that is not in UTF-8, or where nothing can be written; what the system refuses is named by it."""
    check_path(out.absolute())
    try:
        if not os.access(there := _there(out), os.W_OK | os.X_OK):
            problem = f"nothing can be written to {there}" if there.is_dir() else f"{there} is no folder"
            raise PermissionError(errno.EACCES, problem)
        yield
    except OutputExistsError:
        raise
    except OSError as error:
        raise OutputWriteError(out, None, error) from error


def _refuse_existing(out: Path, known: Set[str], *, overwrite: bool) -> None:
    is_link = out.is_symlink()
    if not is_link and not out.exists():
        return
    names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    strangers = sorted(names - known)
    # A link would become a folder, and what it leads to would stay.
    if strangers or not overwrite or is_link:
        raise OutputExistsError(out, strangers=strangers, overwritable=not is_link)


def _there(out: Path) -> Path:
    """Return what is there already of the folders above; of the root, which has none, itself."""
    return next((parent for parent in out.absolute().parents if parent.exists()), Path(out.root))


def _recover(out: Path) -> None:
    """Recover a bundle that stepped aside, unless that is another export's work of this moment."""
    if not aside(out).exists():
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(_locked(_partial(out)))
        except BlockingIOError:
            return
        except FileNotFoundError:
            pass  # so no export is between its renames
        recover(out)


def check_space(out: Path, needed: int) -> None:
    """Refuse a disk that cannot take so many bytes; what a killed export has taken already counts as free.

    Raises:
        OutputSpaceError
    """
    left = [file.stat().st_blocks * 512 for file in _partial(out).glob("*")]
    free = shutil.disk_usage(_there(out)).free + sum(left)
    if free < needed + _SPARE:
        raise OutputSpaceError(out, needed + _SPARE, free)


@contextmanager
def partial_folder(out: Path, fingerprint: str = "") -> Iterator[Path]:
    """Give a folder beside `out`, which is locked while it is used and removed unless it was published.

    With a fingerprint, what an export of the same one left is still in it, and an interrupt leaves what is finished, as
    does something that came to lie under the name meanwhile.
    """
    folder = _partial(out)
    kept = False
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(folder))
        except BlockingIOError as error:
            raise OutputBusyError(out) from error
        except OSError as error:
            raise OutputWriteError(out, None, error) from error
        try:
            _prepare(folder, fingerprint)
            yield folder
        except (KeyboardInterrupt, OutputExistsError):
            kept = bool(fingerprint) and bool(_notes(folder))
            raise
        finally:
            if not kept:
                shutil.rmtree(folder, ignore_errors=True)


def _partial(out: Path) -> Path:
    out = out.absolute()
    return out.parent / f".{out.name}.partial"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder alone; BlockingIOError where another process holds it, or has just given it another name."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not folder.exists() or not os.path.samestat(os.fstat(lock), folder.stat()):
            raise BlockingIOError(errno.EWOULDBLOCK, "another process has renamed it")
        yield
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


def publish(folder: Path, out: Path, known: Set[str], *, overwrite: bool) -> None:
    """Give the finished folder its name; a bundle that had it steps aside first and is then removed.

    Hours may have passed since `check_output` was asked, so what it refuses is refused here too.

    Raises:
        OutputExistsError
    """
    _refuse_existing(out, known, overwrite=overwrite)
    for note in folder.glob(".*"):
        note.unlink()
    sync(folder)
    put_in_place(folder, out)


def replace_file(path: Path, *content: bytes | memoryview) -> None:
    """Replace a file, which is at every moment either the old one or the new one, by parts in a row."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        write_file(partial, *content)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_file(path: Path, *content: bytes | memoryview) -> None:
    """Write a file, of parts in a row, and make it durable."""
    with path.open("wb") as file:
        for part in content:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file and make it durable."""
    write_file(path, (json.dumps(content, indent=2) + "\n").encode())
