"""Whether the state directory takes what is to be kept there: asked before what takes long is begun."""

from __future__ import annotations

import shutil
import tempfile
from typing import TYPE_CHECKING, Final

from edge_assistant.bundle import check_path
from edge_assistant.errors import StateDirectoryError, StateSpaceError

if TYPE_CHECKING:
    from pathlib import Path

_TRIED: Final = bytes(4096)


def check_writable(folder: Path, needed: int = 0) -> None:
    """Make a folder where there is none, and write a page there that nobody sees; `needed` are bytes that must be free.

    Asking for permissions alone would not find a disk that is full or read-only.

    Raises:
        StateDirectoryError: The system refuses.
        StateSpaceError: Fewer bytes are free.
        PathEncodingError
    """
    check_path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(_TRIED)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise StateDirectoryError(folder, error) from error
    if free < needed:
        raise StateSpaceError(folder, needed, free)
