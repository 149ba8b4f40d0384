"""Secrets: the settings name the file that holds one."""

from __future__ import annotations

import stat
from pathlib import Path

from edge_assistant.errors import SecretFileError


def read_secret(path: Path) -> str:
    """Return the secret that a file holds, without the line's end; SecretFileError where others may read it too."""
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise SecretFileError(path, f"others may read or change it; run `chmod 600 {path}`")
        secret = path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise SecretFileError(path, error.strerror or str(error)) from error
    except UnicodeDecodeError:
        raise SecretFileError(path, "it is not UTF-8 text") from None  # the decoder's word would quote the secret
    if not secret:
        raise SecretFileError(path, "it is empty")
    return secret
