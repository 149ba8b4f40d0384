"""The exporter's command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from edge_assistant.bundle import Bundle
from edge_assistant_export.cli import main


def run(*arguments) -> int | str | None:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code


def test_export_verify_and_record(tiny_checkpoint, tmp_path, capsys):
    path, out = tiny_checkpoint(), tmp_path / "kitchen"
    assert run("model", path, out, "--bits", 8, "--licence", "mit") == 0
    text = capsys.readouterr().out
    assert "8 bits a weight in blocks of 32" in text
    assert "A board needs" in text
    assert "model.onnx.data" in text

    (tmp_path / "text").write_text("the lamp is on")
    assert run("verify", out, "--reference", path, "--text", tmp_path / "text", "--record") == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    manifest = Bundle.open(out).manifest
    assert manifest.quality == measured
    assert (manifest.name, manifest.licence, manifest.quantization.bits) == ("kitchen", "mit", 8)


def test_json_is_all_that_standard_output_holds(tiny_checkpoint, tmp_path, capsys):
    (tmp_path / "text").write_text("the lamp is on")
    options = ("--json", "--cache", "int8", "--calibration", tmp_path / "text")
    assert run("model", tiny_checkpoint(), tmp_path / "out", *options) == 0
    printed = json.loads(capsys.readouterr().out)
    files = {file.name: file.stat().st_size for file in (tmp_path / "out").iterdir()}
    del files["manifest.json"]
    assert printed["files"] == files
    assert printed["bytes"] == sum(files.values())
    assert printed["cache_bytes_per_token"] == 2 * 2 * 2 * 16


def test_every_choice_reaches_the_manifest(tiny_checkpoint, tmp_path):
    (tmp_path / "text").write_text("the lamp is on")
    options = {
        "--bits": 4,
        "--block-size": 64,
        "--lm-head-bits": 8,
        "--method": "maximum",
        "--accuracy-level": 0,
        "--cache": "int8",
        "--calibration": tmp_path / "text",
        "--sequence-length": 128,
        "--instruct": "v3-tekken",
        "--name": "hall",
    }
    assert run("model", tiny_checkpoint(), tmp_path / "out", *(part for pair in options.items() for part in pair)) == 0
    manifest = Bundle.open(tmp_path / "out").manifest
    how = manifest.quantization
    assert (how.bits, how.block_size, how.lm_head_bits, how.accuracy_level) == (4, 64, 8, 0)
    assert (how.method, manifest.cache.type, manifest.architecture.max_positions) == ("maximum", "int8", 128)
    assert (manifest.instruct, manifest.name) == ("v3-tekken", "hall")


def test_a_synthetic_checkpoint_can_be_exported(tmp_path, capsys):
    assert run("synth", "--shape", "tiny", "--layers", 1, tmp_path / "checkpoint") == 0
    assert run("model", tmp_path / "checkpoint", tmp_path / "bundle") == 0
    assert Bundle.open(tmp_path / "bundle").manifest.architecture.n_layers == 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--bit", "8"], "--bits"),
        (["--blocksize", "32"], "--block-size"),
        (["--bits", "5"], "nearest that can is 4"),
        (["--method", "max"], "nearest that can is maximum"),
        (["--bits", "four"], "--bits"),
    ],
)
def test_wrong_usage_names_the_nearest_right_one(arguments, hint, tiny_checkpoint, tmp_path, capsys):
    assert run("model", tiny_checkpoint(), tmp_path / "out", *arguments) == 2
    assert hint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_unknown_shape_names_the_nearest(tmp_path, capsys):
    assert run("synth", "--shape", "mistral7b", tmp_path / "out") == 2
    assert "mistral-7b" in capsys.readouterr().err


def test_failures_are_one_line_and_exit_code_1(tiny_checkpoint, tmp_path, capsys):
    assert run("model", tmp_path, tmp_path / "out") == 1
    assert run("verify", tmp_path / "nothing", "--reference", tiny_checkpoint()) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("edge-assistant-export: error: ") for line in lines)


def test_an_output_that_exists_is_refused_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert run("model", tmp_path / "no checkpoint", tmp_path / "out") == 1
    assert "already there" in capsys.readouterr().err


def test_ctrl_c_ends_cleanly(tiny_checkpoint, tmp_path):
    program = "from edge_assistant_export.cli import main; raise SystemExit(main())"
    # A pipe that nobody writes to: the export waits for its text, with its folder begun, until the keys are pressed.
    os.mkfifo(tmp_path / "pipe")
    options = ("--cache", "int8", "--calibration", tmp_path / "pipe")
    command = [sys.executable, "-c", program, "model", tiny_checkpoint(), tmp_path / "out", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        while not (tmp_path / ".out.partial" / "model.onnx.data").exists() and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert errors == "edge-assistant-export: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_help_documents_the_exit_codes(capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("model", "verify", "synth", "exit codes", "130"))
    for command in ("model", "verify", "synth", "speech", "embedding"):
        assert run(command, "--help") == 0
        assert "examples:" in capsys.readouterr().out
