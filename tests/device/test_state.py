"""A state directory that does not take what is to be kept is found out before anything is measured, packed, copied."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_assistant.bundle import Bundle
from edge_assistant.config import EngineSettings
from edge_assistant.device import prepare
from edge_assistant.device.state import check_writable
from edge_assistant.errors import StateDirectoryError, StateSpaceError

MODELS = Path(__file__).parents[2] / "models"


def refused(*_: object, **__: object) -> None:
    raise AssertionError("begun, though it could not be kept")


@pytest.fixture
def nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Tuner", "write_prepacked", "loaded"):
        monkeypatch.setattr(prepare, name, refused)


@pytest.mark.parametrize(("command", "folder"), [("tune", "tuning"), ("warm", "prepacked")])
@pytest.mark.parametrize("obstacle", ["state", "state/{folder}"])
@pytest.mark.usefixtures("nothing_is_begun")
def test_what_cannot_be_kept_is_not_begun(tmp_path: Path, command: str, folder: str, obstacle: str) -> None:
    file = tmp_path / obstacle.format(folder=folder)
    file.parent.mkdir(exist_ok=True)
    file.touch()  # where a folder has to be
    begun = {
        "tune": lambda *given: prepare.tune(*given, lambda _line: None),
        "warm": prepare.warm,
    }[command]
    with pytest.raises(StateDirectoryError, match=rf"state/{folder}\S* cannot be written .*XDG_STATE_HOME"):
        begun(Bundle.open(MODELS / "home-mini"), EngineSettings(), tmp_path / "state")


def test_nothing_is_left_by_asking(tmp_path: Path) -> None:
    check_writable(tmp_path / "state" / "tuning")
    assert [path.name for path in tmp_path.rglob("*")] == ["state", "tuning"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_the_system_s_word_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    error = OSError(code, "the system's word")

    def no_file(**_: object) -> None:
        raise error

    monkeypatch.setattr(tempfile, "TemporaryFile", no_file)
    with pytest.raises(StateDirectoryError, match="the system's word"):
        check_writable(tmp_path)


def test_room_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=2_000_000_000))
    check_writable(tmp_path, 2_000_000_000)
    with pytest.raises(StateSpaceError, match=r"needs 2\.50 GB, and 2\.00 GB are free"):
        check_writable(tmp_path, 2_500_000_000)
