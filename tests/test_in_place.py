"""A folder takes another's place: killed at any step, no bundle is lost and nothing is left beside."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edge_assistant.bundle import MANIFEST_FILE
from edge_assistant.bundle.in_place import put_in_place, recover

KILLED = """
    import os, shutil, signal, sys
    from pathlib import Path
    from edge_assistant.bundle import in_place

    folder, out, step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    left = [step]

    def counted(does):
        def do(*args, **options):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return does(*args, **options)
        return do

    Path.rename, shutil.rmtree, os.fsync = map(counted, (Path.rename, shutil.rmtree, os.fsync))
    in_place.put_in_place(folder, out)
"""
STEPS = 5


def folder(path: Path, says: str) -> Path:
    path.mkdir()
    (path / MANIFEST_FILE).write_text(says)
    return path


def killed(new: Path, out: Path, step: int) -> int:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(new), str(out), str(step)]
    return subprocess.run(command, check=False, timeout=60).returncode


def names_in(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


@pytest.mark.parametrize("step", range(STEPS))
def test_a_kill_at_any_step_loses_neither_and_leaves_nothing(tmp_path: Path, step: int) -> None:
    out, new = folder(tmp_path / "out", "old"), folder(tmp_path / "new", "new")
    assert killed(new, out, step) == -signal.SIGKILL
    recover(out)
    if new.exists():
        assert (out / MANIFEST_FILE).read_text() == "old"
        assert names_in(tmp_path) == ["new", "out"]
        put_in_place(new, out)
    assert (out / MANIFEST_FILE).read_text() == "new"
    assert names_in(tmp_path) == ["out"]


def test_there_are_no_more_steps(tmp_path: Path) -> None:
    assert killed(folder(tmp_path / "new", "new"), folder(tmp_path / "out", "old"), STEPS) == 0
    assert names_in(tmp_path) == ["out"]


def test_an_interrupt_between_the_renames_gives_the_old_one_its_name_back(tmp_path: Path, monkeypatch) -> None:
    out, new, rename = folder(tmp_path / "out", "old"), folder(tmp_path / "new", "new"), Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self == new:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put_in_place(new, out)
    assert (out / MANIFEST_FILE).read_text() == "old"
    assert names_in(tmp_path) == ["new", "out"]


def test_what_was_left_aside_stays_where_another_thing_has_the_name(tmp_path: Path) -> None:
    folder(tmp_path / ".out.old", "old")
    (tmp_path / "out").mkdir()
    recover(tmp_path / "out")
    assert names_in(tmp_path) == [".out.old", "out"]
