from __future__ import annotations

from pathlib import Path

import pytest

from edge_assistant.config import read_secret
from edge_assistant.errors import SecretFileError


def test_a_secret_is_read_without_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("geheim\n", encoding="utf-8")
    file.chmod(0o600)
    assert read_secret(file) == "geheim"


@pytest.mark.parametrize(
    ("text", "mode", "said"), [("x", 0o604, "chmod 600"), ("x", 0o620, "chmod 600"), ("\n", 0o600, "empty")]
)
def test_a_secret_that_others_may_reach_or_that_is_empty_is_refused(
    tmp_path: Path, text: str, mode: int, said: str
) -> None:
    file = tmp_path / "password"
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    with pytest.raises(SecretFileError, match=said):
        read_secret(file)


def test_a_secret_that_is_no_text_is_named_and_not_quoted(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"\xfcber")
    file.chmod(0o600)
    with pytest.raises(SecretFileError, match=r"password: it is not UTF-8 text$"):
        read_secret(file)


def test_a_missing_secret_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretFileError, match="password: No such file"):
        read_secret(tmp_path / "password")
