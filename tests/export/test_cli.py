"""The exporter's command line, run as a user runs it."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_assistant.bundle import Bundle
from edge_assistant_export import verify as verify_module
from edge_assistant_export.cli import main, model
from edge_assistant_export.neighbours import huggingface_config
from edge_assistant_export.synth import SHAPES, byte_level_tokenizer


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
    options = ("--json", "--zero-points", "--cache", "int8", "--calibration", tmp_path / "text")
    assert run("model", tiny_checkpoint(), tmp_path / "out", *options) == 0
    printed = json.loads(capsys.readouterr().out)
    assert Bundle.open(tmp_path / "out").manifest.quantization.zero_points
    files = {file.name: file.stat().st_size for file in (tmp_path / "out").iterdir()}
    del files["manifest.json"]
    assert printed["files"] == files
    assert printed["bytes"] == sum(files.values())
    assert printed["cache_bytes_per_token"] == 2 * 2 * 2 * 16


@pytest.mark.parametrize("with_weights", [True, False])
def test_a_dry_run_says_what_it_would_be_and_needs_no_weights(tiny_checkpoint, tmp_path, capsys, with_weights):
    path = Path(shutil.copytree(tiny_checkpoint(), tmp_path / "checkpoint"))
    if not with_weights:
        (path / "model.safetensors").unlink()
    assert run("model", path, tmp_path / "out", "--dry-run", "--json") == 0
    output = capsys.readouterr()
    printed = json.loads(output.out)
    assert "Licence of the weights: not stated" in output.err
    assert "Nothing was written" in output.err
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]
    if with_weights:
        assert run("model", path, tmp_path / "out", "--json") == 0
        made = json.loads(capsys.readouterr().out)
        assert printed["memory_bytes"] == made["memory_bytes"]
        assert made["files"]["model.onnx.data"] == printed["bytes"]


def test_a_plan_is_printed_where_the_disk_is_too_small_for_it(tiny_checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1_000_000))
    assert run("model", tiny_checkpoint(), tmp_path / "out", "--dry-run") == 1
    output = capsys.readouterr()
    assert "A board needs" in output.out
    assert "0.00 GB are free there: make room" in output.err


SHAPE_OF = {"Mistral-7B": "mistral-7b", "Mixtral-8x7B": "mixtral-8x7b", "home-mini": "tiny"}
EXAMPLES = [line.split()[2:] for line in model._EXAMPLES.splitlines() if line.startswith("  edge-assistant-export")]


@pytest.mark.parametrize("example", EXAMPLES, ids=" ".join)
def test_what_the_help_gives_as_an_example_can_be_done(example, tmp_path, capsys, monkeypatch):
    """Full shapes, of which the configuration alone is there."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=10**12))
    checkpoint, out, *options = example
    shape = SHAPES[next(shape for name, shape in SHAPE_OF.items() if name in checkpoint)]
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(huggingface_config(shape, {})))
    byte_level_tokenizer(512).save(str(folder / "tokenizer.json"))
    if "--adapter" in options:
        at = options.index("--adapter")
        del options[at : at + 2]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pages.txt").write_text("the lamp is on")
    assert run("model", folder, tmp_path / Path(out).name, "--dry-run", *options) == 0, capsys.readouterr().err


def test_every_choice_reaches_the_manifest(tiny_checkpoint, tmp_path):
    (tmp_path / "text").write_text("the lamp is on")
    options = {
        "--bits": 4,
        "--block-size": 64,
        "--eight-bits": "lm_head,layers.0.down",
        "--small-blocks": "layers.0.o",
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
    assert (how.bits, how.block_size, how.accuracy_level) == (4, 64, 0)
    assert (how.eight_bits, how.small_blocks) == (("layers.0.down", "lm_head"), ("layers.0.o",))
    assert not how.zero_points
    assert (how.method, manifest.cache.type, manifest.architecture.max_positions) == ("maximum", "int8", 128)
    assert (manifest.instruct, manifest.name) == ("v3-tekken", "hall")


@pytest.mark.parametrize(
    ("options", "stored"),
    [
        (("--lm-head-bits", 8), ("lm_head",)),
        (("--lm-head-bits", 8, "--eight-bits", "layers.0.down"), ("layers.0.down", "lm_head")),
        (("--lm-head-bits", 4), ()),
        (("--bits", 8, "--lm-head-bits", 8), ()),
    ],
)
def test_the_head_has_bits_of_its_own(options, stored, tiny_checkpoint, tmp_path):
    assert run("model", tiny_checkpoint(), tmp_path / "out", *options) == 0
    assert Bundle.open(tmp_path / "out").manifest.quantization.eight_bits == stored


@pytest.mark.parametrize(("options", "nearest"), [(("--lm-head-bits", 5), 4), (("--bits", 8, "--lm-head-bits", 4), 8)])
def test_a_head_has_4_bits_or_8_and_never_fewer_than_the_rest(options, nearest, tiny_checkpoint, tmp_path, capsys):
    assert run("model", tiny_checkpoint(), tmp_path / "out", *options) != 0
    assert f"lm_head_bits cannot be {options[-1]}: the nearest that can is {nearest}" in capsys.readouterr().err


def test_a_window_is_bounded_unless_said_otherwise(tiny_checkpoint, tmp_path, capsys):
    path = tiny_checkpoint(sliding_window=8, max_position_embeddings=4096)
    per_token = 4 * 2 * 2 * 2 * 16
    for option, kind, most in (((), "bounded", 8 + 1024), (("--window-cache", "full"), "full", 4096)):
        assert run("model", path, tmp_path / kind, "--json", *option) == 0
        output = capsys.readouterr()
        assert json.loads(output.out)["cache_bytes"] == most * per_token
        assert (f"up to {most} tokens, 0 B beyond" in output.err) == (kind == "bounded")
        assert Bundle.open(tmp_path / kind).manifest.cache.window == kind


def test_a_board_chooses_what_was_not_said_and_the_plan_says_why(tiny_checkpoint, tmp_path, capsys):
    path = tiny_checkpoint()
    assert run("model", path, tmp_path / "old", "--for", "pi3") == 0
    assert "  - Accuracy level 0: the Cortex-A53 has no dot products" in capsys.readouterr().out
    assert run("model", path, tmp_path / "new", "--for", "pi5-8gb", "--block-size", 64, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["target"] == "raspberry-pi-5-8gb"
    assert any("blocks of 64" in reason for reason in printed["reasons"])
    old, new = (Bundle.open(tmp_path / name).manifest for name in ("old", "new"))
    assert (old.quantization.bits, old.quantization.accuracy_level, old.architecture.max_positions) == (4, 0, 512)
    assert (new.quantization.bits, new.quantization.accuracy_level, new.quantization.block_size) == (8, 4, 64)


def test_without_a_board_the_defaults_stand(tiny_checkpoint, tmp_path, capsys):
    assert run("model", tiny_checkpoint(), tmp_path / "out", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["target"], printed["reasons"]) == (None, [])
    how = Bundle.open(tmp_path / "out").manifest.quantization
    assert (how.bits, how.block_size, how.accuracy_level, how.method) == (4, 32, 4, "least_squares")


def test_what_a_board_cannot_hold_is_refused_and_nothing_is_left(tiny_checkpoint, tmp_path, capsys):
    path = tiny_checkpoint(max_position_embeddings=1_000_000, num_key_value_heads=4)
    options = ("--for", "zero2w", "--cache", "float", "--sequence-length", 1_000_000)
    assert run("model", path, tmp_path / "out", *options) == 1
    text = capsys.readouterr().err
    assert "Raspberry Pi Zero 2 W with 512 MB is too small" in text
    assert "--sequence-length" in text
    assert "--for raspberry-pi-4-2gb" in text
    assert not list(tmp_path.iterdir())


def test_boards_are_listed_for_people_and_for_programs(capsys):
    assert run("boards") == 0
    text = capsys.readouterr().out
    assert run("boards", "--json") == 0
    known = json.loads(capsys.readouterr().out)
    assert {"raspberry-pi-3-1gb", "raspberry-pi-5-16gb", "jetson-agx-orin-64gb"} <= {one["name"] for one in known}
    assert len(text.splitlines()) == len(known) + 1
    assert all(one["name"] in text and 0 < one["usable_bytes"] < one["ram_bytes"] for one in known)


def test_a_synthetic_checkpoint_can_be_exported(tmp_path, capsys):
    assert run("synth", "--shape", "tiny", "--layers", 1, tmp_path / "checkpoint") == 0
    assert run("model", tmp_path / "checkpoint", tmp_path / "bundle") == 0
    assert Bundle.open(tmp_path / "bundle").manifest.architecture.n_layers == 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--bit", "8"], "--bits"),
        (["--blocksize", "32"], "--block-size"),
        (["--BITS", "8"], "did you mean --bits?"),
        (["--method", "GPTQ"], "method cannot be GPTQ: the nearest that can is gptq"),
        (["--bits", "5"], "nearest that can is 4"),
        (["--method", "max"], "nearest that can is maximum"),
        (["--method", "maximum", "--zero-points"], "zero_points cannot be used with method maximum"),
        (["--bits", "four"], "--bits"),
        (["--for", "pi6"], "did you mean pi5"),
        (["--instruct", "v15"], "there are v1, v2"),
        (["--name", "../kitchen"], "name cannot be '../kitchen': the nearest that can is one of letters"),
        (["--name", ".."], "name cannot be '..'"),
        (["--name", "two\nlines"], "name cannot be 'two\\nlines'"),
        (["--for", "pi5", "--bits", "5"], "nearest that can is 4"),
        (["--bits", "32", "--method", "gptq"], "method cannot be gptq: the nearest that can is none, as bits is 32"),
        (["--bits", "32", "--zero-points"], "zero_points cannot be True"),
        (["--bits", "32", "--accuracy-level", "4"], "accuracy_level cannot be 4"),
        (["--bits", "16", "--dtype", "float16", "--block-size", "64"], "block_size cannot be 64"),
        (["--lm-head-bits", "4", "--eight-bits", "lm_head"], "as eight_bits names lm_head"),
    ],
)
def test_wrong_usage_names_the_nearest_right_one(arguments, hint, tiny_checkpoint, tmp_path, capsys):
    assert run("model", tiny_checkpoint(), tmp_path / "out", *arguments) == 2
    assert hint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layers", ["0", "-1"])
def test_a_shape_has_layers(layers, tmp_path, capsys):
    assert run("synth", "--shape", "tiny", "--layers", layers, tmp_path / "out") == 2
    assert f"layers cannot be {layers}: the nearest that can is 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_synthetic_checkpoint_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run("synth", "--shape", "tiny", tmp_path / "file" / "out") == 1
    assert "file/out could not be written (Not a directory)" in capsys.readouterr().err


def test_a_synthetic_checkpoint_that_does_not_fit_leaves_nothing(tmp_path):
    def at_most_100_kb_a_file():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = [sys.executable, "-m", "edge_assistant_export", "synth", "--shape", "tiny", tmp_path / "out"]
    child = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, preexec_fn=at_most_100_kb_a_file
    )
    assert child.returncode == 1
    assert "nothing is left under its name" in child.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(("content", "problem"), [(None, "No such file"), (b"gr\xfcn", "UTF-8"), (b" \n", "empty")])
def test_a_text_to_calibrate_with_is_looked_at_before_the_checkpoint(tmp_path, capsys, content, problem, dry_run):
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    options = ("--method", "gptq", "--calibration", tmp_path / "text", *(("--dry-run",) if dry_run else ()))
    assert run("model", tmp_path / "no checkpoint", tmp_path / "out", *options) == 1
    assert f"error: {tmp_path / 'text'}: it " in (said := capsys.readouterr().err)
    assert problem in said


def test_a_text_to_verify_with_that_cannot_be_read_is_named(tiny_checkpoint, export_bundle, tmp_path, capsys):
    (tmp_path / "latin-1").write_bytes("grün".encode("latin-1"))
    bundle = export_bundle(tiny_checkpoint()).path
    for name, problem in (
        ("latin-1", "no text in UTF-8"),
        ("absent", "cannot be read (No such file"),
        (".", "directo"),
    ):
        assert run("verify", bundle, "--reference", tiny_checkpoint(), "--text", tmp_path / name) == 1
        assert f"error: {tmp_path / name}: " in (said := capsys.readouterr().err)
        assert problem in said


def test_an_unknown_shape_names_the_nearest(tmp_path, capsys):
    assert run("synth", "--shape", "NEMO", tmp_path / "out") == 2
    assert "shape cannot be NEMO: the nearest that can is nemo" in capsys.readouterr().err


def test_failures_are_one_line_and_exit_code_1(tiny_checkpoint, tmp_path, capsys):
    assert run("model", tmp_path, tmp_path / "out") == 1
    assert run("verify", tmp_path / "nothing", "--reference", tiny_checkpoint()) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("edge-assistant-export: error: ") for line in lines)


def test_an_output_that_cannot_be_made_is_refused_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "file").touch()
    for command in ("model", "speech", "embedding"):
        assert run(command, tmp_path / "no checkpoint", tmp_path / "file" / "out") == 1
        assert f"out could not be written ({tmp_path / 'file'} is no folder)" in capsys.readouterr().err


def test_a_folder_to_which_nothing_can_be_written_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _mode: path != tmp_path)
    assert run("model", tmp_path / "no checkpoint", tmp_path / "out") == 1
    assert f"could not be written (nothing can be written to {tmp_path})" in capsys.readouterr().err


def test_what_cannot_be_recorded_is_not_measured(tiny_checkpoint, tiny_bundle, capsys, monkeypatch):
    def read_only(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(verify_module, "TemporaryFile", read_only)
    monkeypatch.setattr(verify_module, "verify", lambda *_: pytest.fail("measured"))
    assert run("verify", tiny_bundle().path, "--reference", tiny_checkpoint(), "--record") == 1
    assert "nothing can be recorded in its folder (Read-only file system)" in capsys.readouterr().err


def test_the_root_of_all_folders_is_there_already(tmp_path, capsys):
    assert run("model", tmp_path / "no checkpoint", "/") == 1
    assert "error: / is already there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "problem"), [("file/out", "file is no folder"), ("file", "already there"), (".", "already there: name")]
)
def test_an_adapter_that_cannot_be_written_is_refused_before_it_is_looked_for(tmp_path, capsys, out, problem):
    (tmp_path / "file").touch()
    assert run("adapter", tmp_path / "no adapter", tmp_path / out, "--for", tmp_path / "no bundle") == 1
    assert problem in (said := capsys.readouterr().err)
    assert "no adapter" not in said


def test_a_folder_is_not_replaced_by_an_adapter(tmp_path, capsys):
    assert run("adapter", tmp_path / "no adapter", tmp_path, "--for", tmp_path / "no bundle", "--overwrite") == 1
    assert f"error: {tmp_path} is already there" in capsys.readouterr().err


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
    assert errors.splitlines()[-1] == "edge-assistant-export: interrupted"
    assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_help_documents_the_exit_codes(capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("model", "verify", "synth", "boards", "exit codes", "130"))
    for command in ("model", "verify", "synth", "boards", "speech", "embedding"):
        assert run(command, "--help") == 0
        assert "examples:" in capsys.readouterr().out
