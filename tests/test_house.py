"""What the two distributions hold and promise."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import edge_assistant
import edge_assistant_export
from edge_assistant import errors

ROOT = Path(__file__).parents[1]
RUNTIME = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXPORT = tomllib.loads((ROOT / "export" / "pyproject.toml").read_text(encoding="utf-8"))


def build_wheel(source: Path, names: list[str], into: Path) -> set[str]:
    """Build a copy, since setuptools leaves its traces beside the sources; return the names in the wheel."""
    copy = into / "source"
    copy.mkdir()
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
        else:
            shutil.copy2(source / name, copy / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", into, copy], check=True)
    (wheel,) = into.glob("*.whl")
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def sources(package: Path, pattern: str = "*.py") -> set[str]:
    return {str(path.relative_to(package.parent)) for path in package.rglob(pattern)}


def test_the_board_s_wheel_holds_the_package_and_the_boards_configs_and_nothing_else(tmp_path: Path) -> None:
    names = ["pyproject.toml", "README.md", "LICENSE", "edge_assistant", "firmware_configs"]
    configs = {f"edge_assistant/firmware_configs/{path.name}" for path in (ROOT / "firmware_configs").glob("*.toml")}
    assert configs
    expected = sources(ROOT / "edge_assistant") | configs | {"edge_assistant/py.typed"}
    assert build_wheel(ROOT, names, tmp_path) == expected


def test_the_exporter_s_wheel_holds_its_package_and_nothing_else(tmp_path: Path) -> None:
    package = ROOT / "export" / "edge_assistant_export"
    expected = sources(package) | sources(package, "by_hand/*.yaml") | {"edge_assistant_export/py.typed"}
    assert build_wheel(ROOT / "export", ["pyproject.toml", "edge_assistant_export"], tmp_path) == expected


def test_both_distributions_are_of_one_version() -> None:
    assert edge_assistant_export.__version__ == edge_assistant.__version__
    assert f"edge-assistant-runtime=={edge_assistant.__version__}" in EXPORT["project"]["dependencies"]


@pytest.mark.parametrize("project", [RUNTIME, EXPORT], ids=["runtime", "export"])
def test_neither_distribution_can_be_uploaded_by_mistake(project: dict[str, dict[str, list[str]]]) -> None:
    assert "Private :: Do Not Upload" in project["project"]["classifiers"]


def test_the_board_s_dependencies_leave_the_workstation_s_out() -> None:
    extras = RUNTIME["project"]["optional-dependencies"]
    assert set(extras) == {"mqtt", "http", "voice", "all", "dev"}
    board = [*RUNTIME["project"]["dependencies"], *(name for key in extras if key != "dev" for name in extras[key])]
    names = {re.split(r"[\[<>=!~ ]", requirement)[0] for requirement in board}
    assert not names & {"torch", "transformers", "onnx", "onnx_ir", "safetensors", "optimum-onnx", "huggingface_hub"}


def test_the_tree_drawn_in_errors_is_the_tree_there_is() -> None:
    assert errors.__doc__ is not None
    drawn: dict[str, str] = {}
    path = ["EdgeAssistantError"]
    for indent, name, builtin in re.findall(r"^ {4}([│ ]*)[├└]── (\w+)(?: +\((\w+)\))?", errors.__doc__, re.MULTILINE):
        del path[len(indent) // 4 + 1 :]
        drawn[name] = " ".join(filter(None, [path[-1], builtin]))
        path.append(name)
    classes = dict(inspect.getmembers(errors, inspect.isclass))
    del classes["EdgeAssistantError"]
    actual = {name: " ".join(base.__name__ for base in found.__bases__) for name, found in classes.items()}
    assert actual == drawn


def test_no_python_file_lies_in_the_rooms_for_data() -> None:
    assert not [
        *(ROOT / "export").glob("*.py"),
        *(ROOT / "models").glob("*.py"),
        *(ROOT / "firmware_configs").glob("*.py"),
    ]
    assert not list((ROOT / "tests").rglob("__init__.py"))
