"""Paths that are not in UTF-8 are refused by name before anything is read, written or left beside."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from edge_assistant_export.cli import FAILED, main

CAFE = os.fsdecode(b"caf\xe9")  # as an old disk has it, in latin-1


@pytest.fixture
def refused(capfd, tmp_path):
    def run(*arguments: str | Path) -> None:
        before = sorted(tmp_path.rglob("*"))
        assert main([str(argument) for argument in arguments]) == FAILED
        said = capfd.readouterr()
        assert said.out == ""
        assert re.search(r"caf\\xe9(/out)? is no path in UTF-8: rename it", said.err)
        assert sorted(tmp_path.rglob("*")) == before

    return run


@pytest.mark.parametrize("options", [(), ("--name", "cafe"), ("--dry-run",), ("--json", "--name", "cafe")], ids=str)
def test_an_output(tiny_checkpoint, tmp_path, refused, options):
    refused("model", tiny_checkpoint(), tmp_path / CAFE, *options)


def test_a_folder_above_it(tiny_checkpoint, tmp_path, refused, monkeypatch):
    (tmp_path / CAFE).mkdir()
    monkeypatch.chdir(tmp_path / CAFE)
    refused("model", tiny_checkpoint(), "out")


def test_a_checkpoint(tiny_checkpoint, tmp_path, refused):
    checkpoint = shutil.copytree(tiny_checkpoint(), tmp_path / CAFE)
    refused("model", checkpoint, tmp_path / "out")


def test_an_adapter(folder, adapter, tmp_path, refused):
    refused("model", folder, tmp_path / "out", "--adapter", adapter.rename(tmp_path / CAFE))


def test_a_random_checkpoint(tmp_path, refused):
    refused("synth", "--shape", "tiny", tmp_path / CAFE)


def test_a_file_for_an_adapter(adapter, tiny_bundle, tmp_path, refused):
    refused("adapter", adapter, tmp_path / CAFE, "--for", tiny_bundle().path)


def test_a_bundle_that_is_verified(tiny_checkpoint, tiny_bundle, tmp_path, refused):
    bundle = shutil.copytree(tiny_bundle().path, tmp_path / CAFE)
    refused("verify", bundle, "--reference", tiny_checkpoint())


@pytest.mark.parametrize("command", ["speech", "embedding"])
def test_an_output_of_another_kind(tmp_path, refused, command):
    refused(command, tmp_path, tmp_path / CAFE)
