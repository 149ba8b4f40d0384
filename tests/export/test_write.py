"""A bundle appears whole or not at all: full disks, kills, second exports and broken weights are caused here."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge_assistant.bundle import Bundle, Manifest
from edge_assistant.errors import (
    CheckpointError,
    OutputBusyError,
    OutputExistsError,
    OutputSpaceError,
    OutputWriteError,
    RecipeError,
)
from edge_assistant_export import pieces, write
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.journal import Journal
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.write import export

EXPORT = """
    import os, resource, signal, sys
    from pathlib import Path
    from edge_assistant_export.checkpoint import Checkpoint
    from edge_assistant_export.recipe import Recipe
    from edge_assistant_export import pieces, write

    source, out, piece = sys.argv[1:]
    pieces.WEIGHTS_AT_A_TIME = int(piece)

    def progress(stage, done, total):
        {at_progress}

    with Checkpoint.open(source) as checkpoint:
        write.export(checkpoint, Recipe(), Path(out), progress)
"""


def export_in_a_child(
    checkpoint, out, at_progress, piece=pieces.WEIGHTS_AT_A_TIME, **options
) -> subprocess.CompletedProcess:
    """Export in a process of its own, which does `at_progress` once the first weights are on the disk."""
    code = textwrap.dedent(EXPORT).format(at_progress=at_progress)
    command = [sys.executable, "-c", code, checkpoint, out, str(piece)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, **options)


@contextmanager
def held_by_another(partial):
    """Hold the folder of an export as another process would that writes it."""
    partial.mkdir()
    other = os.open(partial, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(other)


def names_in(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def export_here(checkpoint, out, *, overwrite=False, **recipe) -> Manifest:
    with Checkpoint.open(checkpoint) as opened:
        return export(opened, Recipe(**recipe), out, overwrite=overwrite)


@pytest.fixture
def checkpoint(tiny_checkpoint):
    return tiny_checkpoint()


def test_the_board_opens_what_was_written(checkpoint, tmp_path):
    manifest = export_here(checkpoint, tmp_path / "kitchen", licence="apache-2.0")
    bundle = Bundle.open(tmp_path / "kitchen")
    assert bundle.manifest == manifest
    assert manifest.name == "kitchen"
    assert manifest.licence == "apache-2.0"
    assert {file.name for file in bundle.path.iterdir()} == {*manifest.files, "manifest.json"}
    assert names_in(tmp_path) == ["kitchen"]


def test_the_same_export_gives_the_same_bytes(checkpoint, tmp_path):
    first, second = (export_here(checkpoint, tmp_path / str(number), name="same") for number in range(2))
    assert first == second


def test_progress_ends_with_every_weight(checkpoint, tmp_path):
    seen = []
    with Checkpoint.open(checkpoint) as opened:
        export(opened, Recipe(), tmp_path / "out", lambda _stage, *counts: seen.append(counts))
        weights = sum(np.prod(opened.shape(name)) for name in ("embedding", "lm_head"))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] > weights


def test_what_is_there_is_not_replaced_unasked(checkpoint, tmp_path):
    export_here(checkpoint, tmp_path / "out", name="first")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        export_here(checkpoint, tmp_path / "out", name="second")
    assert Bundle.open(tmp_path / "out").manifest.name == "first"
    export_here(checkpoint, tmp_path / "out", overwrite=True, name="second")
    assert Bundle.open(tmp_path / "out").manifest.name == "second"
    assert names_in(tmp_path) == ["out"]


@pytest.mark.parametrize("with_bundle", [False, True])
def test_only_a_bundle_is_ever_replaced(checkpoint, tmp_path, with_bundle):
    out = tmp_path / "photos"
    if with_bundle:
        export_here(checkpoint, out)
    out.mkdir(exist_ok=True)
    (out / "cat.jpg").touch()
    with pytest.raises(OutputExistsError, match=r"cat\.jpg in it would be lost"):
        export_here(checkpoint, out, overwrite=True)
    assert (out / "cat.jpg").exists()
    assert (out / "manifest.json").exists() == with_bundle


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_comes_to_lie_there_meanwhile_is_not_replaced_and_what_is_finished_is_kept(
    checkpoint, tmp_path, monkeypatch, read_again, overwrite
):
    monkeypatch.setattr(pieces, "WEIGHTS_AT_A_TIME", 512)
    whole = export_here(checkpoint, tmp_path / "whole")
    of_whole = len(read_again)
    out = tmp_path / "out"

    def mine(*_):
        out.mkdir(exist_ok=True)
        (out / "cat.jpg").touch()

    with Checkpoint.open(checkpoint) as opened, pytest.raises(OutputExistsError):
        export(opened, Recipe(), out, mine, overwrite=overwrite)
    assert names_in(out) == ["cat.jpg"]
    shutil.rmtree(out)
    read_again.clear()
    assert export_here(checkpoint, out).files == whole.files
    assert len(read_again) < 0.5 * of_whole
    assert names_in(tmp_path) == ["out", "whole"]


def test_of_two_exports_that_began_together_the_second_does_not_replace_the_first(checkpoint, tmp_path, monkeypatch):
    check_output = write.check_output

    def both_look(out, known, *, overwrite):
        check_output(out, known, overwrite=overwrite)
        monkeypatch.setattr(write, "check_output", check_output)
        export_here(checkpoint, out, name="first")

    monkeypatch.setattr(write, "check_output", both_look)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        export_here(checkpoint, tmp_path / "out", name="second")
    assert Bundle.open(tmp_path / "out").manifest.name == "first"


@pytest.mark.parametrize("to", ["bundle", "nowhere"])
def test_a_link_is_not_replaced_by_a_bundle(checkpoint, tmp_path, to):
    export_here(checkpoint, tmp_path / "bundle")
    (tmp_path / "link").symlink_to(tmp_path / to)
    with pytest.raises(OutputExistsError, match="already there: name another"):
        export_here(checkpoint, tmp_path / "link", overwrite=True)
    assert names_in(tmp_path) == ["bundle", "link"]
    assert (tmp_path / "link").is_symlink()


def test_a_name_that_no_folder_can_have_is_named(checkpoint, tmp_path):
    with pytest.raises(OutputWriteError, match=r"File name too long"):
        export_here(checkpoint, tmp_path / ("x" * 300))


def test_a_killed_export_leaves_no_bundle_and_the_next_one_succeeds(checkpoint, tmp_path):
    killed = export_in_a_child(checkpoint, tmp_path / "out", "os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.returncode == -signal.SIGKILL
    assert names_in(tmp_path) == [".out.partial"]
    (tmp_path / ".out.partial" / "left over").touch()
    (tmp_path / ".out.partial" / ".fingerprint").write_text("that of another exporter")
    manifest = export_here(checkpoint, tmp_path / "out")
    assert names_in(tmp_path) == ["out"]
    assert "left over" not in manifest.files


KILLED_HALFWAY = "if done > total // 2: os.kill(os.getpid(), signal.SIGKILL)"


def kill_halfway(checkpoint, out, monkeypatch, at_progress=KILLED_HALFWAY) -> int:
    """Kill an export of small pieces halfway; return how many pieces it had noted as finished."""
    monkeypatch.setattr(pieces, "WEIGHTS_AT_A_TIME", 512)
    child = export_in_a_child(checkpoint, out, at_progress, piece=512)
    assert child.returncode < 0, child.stderr
    return len((out.with_name(f".{out.name}.partial") / ".finished.jsonl").read_text().splitlines())


@pytest.fixture
def read_again(monkeypatch):
    """Return the names of the tensors that are read from now on."""
    names = []
    tensor = Checkpoint.tensor
    monkeypatch.setattr(
        Checkpoint, "tensor", lambda self, name, rows=None: names.append(name) or tensor(self, name, rows)
    )
    return names


@pytest.mark.parametrize("end", ["SIGKILL", "SIGINT"])
def test_an_export_goes_on_where_it_was_stopped(checkpoint, tmp_path, monkeypatch, read_again, end):
    monkeypatch.setattr(pieces, "WEIGHTS_AT_A_TIME", 512)
    whole = export_here(checkpoint, tmp_path / "whole")
    of_whole = len(read_again)
    finished = kill_halfway(checkpoint, tmp_path / "out", monkeypatch, KILLED_HALFWAY.replace("SIGKILL", end))
    read_again.clear()
    assert export_here(checkpoint, tmp_path / "out").files == whole.files
    assert finished > 20
    assert len(read_again) < 0.8 * of_whole
    assert names_in(tmp_path) == ["out", "whole"]


def test_an_export_killed_before_its_last_step_goes_on_to_a_whole_bundle(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "WEIGHTS_AT_A_TIME", 512)
    kill = "write.publish = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)"
    code = textwrap.dedent(EXPORT).format(at_progress="pass").replace("with Checkpoint", f"{kill}\nwith Checkpoint", 1)
    command = [sys.executable, "-c", code, checkpoint, tmp_path / "out", "512"]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    assert (tmp_path / ".out.partial" / "manifest.json").exists()
    assert "manifest.json" not in export_here(checkpoint, tmp_path / "out").files
    Bundle.open(tmp_path / "out")


def test_a_piece_that_a_power_cut_lost_is_written_again(checkpoint, tmp_path, monkeypatch):
    whole = export_here(checkpoint, tmp_path / "whole")
    kill_halfway(checkpoint, tmp_path / "out", monkeypatch)
    weights = tmp_path / ".out.partial" / "model.onnx.data"
    weights.write_bytes(bytes(weights.stat().st_size))
    journal = tmp_path / ".out.partial" / ".finished.jsonl"
    journal.write_text(journal.read_text()[:-30])
    assert export_here(checkpoint, tmp_path / "out").files == whole.files


def test_a_line_that_a_power_cut_tore_costs_the_journal_no_other(tmp_path):
    path = tmp_path / "journal"
    for piece in ("first", "second", "third"):
        with Journal(path) as journal:
            journal.add(piece, 64 * "a")
        path.write_bytes(path.read_bytes()[:-10] + (b"" if piece == "second" else b"\0\xff\n"))
        with Journal(path) as journal:
            journal.add(f"after {piece}", 64 * "b")
    with Journal(path) as journal:
        for piece in ("first", "second", "third"):
            assert journal.hash_of(piece) is None
            assert journal.hash_of(f"after {piece}") == 64 * "b"


def test_texts_of_another_vocabulary_are_not_gone_on_with(folder, tmp_path):
    (tmp_path / "text").write_text("the lamp is on")
    recipe = {"cache": "int8", "calibration": tmp_path / "text"}

    def stop(stage, *_):
        if stage == "weights":
            raise KeyboardInterrupt

    with Checkpoint.open(folder) as opened, pytest.raises(KeyboardInterrupt):
        export(opened, Recipe(**recipe), tmp_path / "out", stop)
    assert (tmp_path / ".out.partial" / ".texts.json").exists()
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["merges"].clear()  # the same ids, but a text becomes others of them
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    expected = export_here(folder, tmp_path / "expected", **recipe).files
    assert export_here(folder, tmp_path / "out", **recipe).files == expected


@pytest.mark.parametrize("change", ["recipe", "checkpoint"])
def test_what_another_export_left_is_not_gone_on_with(checkpoint, tmp_path, monkeypatch, change):
    source = shutil.copytree(checkpoint, tmp_path / "source")
    kill_halfway(source, tmp_path / "out", monkeypatch)
    recipe = {"block_size": 64} if change == "recipe" else {}
    if change == "checkpoint":
        tensors = {name: tensor * 2 for name, tensor in load_file(source / "model.safetensors").items()}
        save_file(tensors, source / "model.safetensors")
    expected = export_here(source, tmp_path / "fresh", **recipe).files
    assert export_here(source, tmp_path / "out", **recipe).files == expected


def test_texts_that_the_model_sampled_are_sampled_once(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("edge_assistant_export.calibration_text._SAMPLED_TOKENS", 4)
    sampled = []

    def stop_at_the_weights(stage, _done, _total):
        sampled.append(stage)
        if stage == "weights":
            raise KeyboardInterrupt

    with Checkpoint.open(checkpoint) as opened:
        with pytest.raises(KeyboardInterrupt):
            export(opened, Recipe(cache="int8"), tmp_path / "out", stop_at_the_weights)
        assert "calibration" in sampled
        sampled.clear()
        export(opened, Recipe(cache="int8"), tmp_path / "out", lambda stage, *_: sampled.append(stage))
    assert "calibration" not in sampled
    assert names_in(tmp_path) == ["out"]


def test_an_interrupt_before_anything_is_finished_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("edge_assistant_export.write.rotary_tables", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_here(checkpoint, tmp_path / "out")
    assert names_in(tmp_path) == []


def test_a_disk_without_room_is_refused_before_anything_is_read(checkpoint, tmp_path, monkeypatch, read_again):
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=10_000_000))
    with pytest.raises(OutputSpaceError, match=r"0\.01 GB are free there: make room"):
        export_here(checkpoint, tmp_path / "out")
    assert names_in(tmp_path) == read_again == []


def test_a_killed_replacement_keeps_the_old_bundle(checkpoint, tmp_path):
    export_here(checkpoint, tmp_path / "out")
    code = textwrap.dedent(EXPORT).format(at_progress="os.kill(os.getpid(), signal.SIGKILL)")
    code = code.replace("progress)", "progress, overwrite=True)")
    command = [sys.executable, "-c", code, checkpoint, tmp_path / "out", "512"]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    Bundle.open(tmp_path / "out")


def killed_between_the_renames(checkpoint, out) -> None:
    """Replace a bundle in a process of its own, which is killed when the old one has stepped aside."""
    kill = "os.kill(os.getpid(), signal.SIGKILL) if self.name.endswith('.partial') else rename(self, target)"
    code = textwrap.dedent(EXPORT).format(at_progress="pass").replace("progress)", "progress, overwrite=True)")
    code = f"from pathlib import Path\nrename = Path.rename\nPath.rename = lambda self, target: {kill}\n{code}"
    command = [sys.executable, "-c", code, checkpoint, out, "512"]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    assert names_in(out.parent) == [f".{out.name}.old", f".{out.name}.partial"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_replacement_killed_between_its_renames_is_recovered(checkpoint, tmp_path, overwrite):
    old = export_here(checkpoint, tmp_path / "out", name="old")
    killed_between_the_renames(checkpoint, tmp_path / "out")

    def stop(*_):
        assert Bundle.open(tmp_path / "out").manifest == old
        raise KeyboardInterrupt

    with Checkpoint.open(checkpoint) as opened, pytest.raises(KeyboardInterrupt if overwrite else OutputExistsError):
        export(opened, Recipe(), tmp_path / "out", stop, overwrite=overwrite)
    assert Bundle.open(tmp_path / "out").manifest == old
    new = export_here(checkpoint, tmp_path / "out", name="new", overwrite=True)
    assert Bundle.open(tmp_path / "out").manifest == new
    assert names_in(tmp_path) == ["out"]


def test_a_replacement_killed_before_it_removed_the_old_one_is_recovered(checkpoint, tmp_path):
    old = export_here(checkpoint, tmp_path / "out")
    shutil.copytree(tmp_path / "out", tmp_path / ".out.old")
    with pytest.raises(OutputExistsError):
        export_here(checkpoint, tmp_path / "out")
    assert names_in(tmp_path) == ["out"]
    assert Bundle.open(tmp_path / "out").manifest == old


def test_what_another_export_has_put_aside_is_its_own(checkpoint, tmp_path):
    (tmp_path / ".out.old").mkdir()
    with held_by_another(tmp_path / ".out.partial"), pytest.raises(OutputBusyError):
        export_here(checkpoint, tmp_path / "out")
    assert names_in(tmp_path) == [".out.old", ".out.partial"]


def test_a_replacement_that_fails_at_the_last_step_keeps_the_old_bundle(checkpoint, tmp_path, monkeypatch):
    old = export_here(checkpoint, tmp_path / "out", name="old")
    rename = Path.rename

    def refused(self, target):
        if self.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OutputWriteError, match="Input/output error"):
        export_here(checkpoint, tmp_path / "out", overwrite=True)
    assert Bundle.open(tmp_path / "out").manifest == old
    assert names_in(tmp_path) == ["out"]


def test_what_is_kept_for_the_next_run_is_on_the_disk_before_it_has_its_name(checkpoint, tmp_path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink()) or fsync(file)
    )
    (tmp_path / "text").write_text("the lamp is on")
    export_here(checkpoint, tmp_path / "out", method="awq", calibration=tmp_path / "text")
    for note in (".fingerprint", ".texts.json", ".scales.npz"):
        assert any(note in path.name for path in synced), note


def test_a_disk_that_is_too_small_leaves_nothing(checkpoint, tmp_path):
    def at_most_100_kb_a_file():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    child = export_in_a_child(checkpoint, tmp_path / "out", "pass", preexec_fn=at_most_100_kb_a_file)
    assert f"{OutputWriteError.__name__}: {tmp_path / 'out'} could not be written" in child.stderr
    assert names_in(tmp_path) == []


def test_a_folder_that_may_not_be_written_is_named(checkpoint, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputWriteError, match="file/out could not be written"):
        export_here(checkpoint, tmp_path / "file" / "out")


def test_two_exports_of_one_bundle_do_not_mix(checkpoint, tmp_path):
    with held_by_another(tmp_path / ".out.partial"), pytest.raises(OutputBusyError):
        export_here(checkpoint, tmp_path / "out")
    assert (tmp_path / ".out.partial").is_dir()
    export_here(checkpoint, tmp_path / "out")


def test_a_folder_that_another_export_gives_its_name_meanwhile_is_not_taken_for_ours(checkpoint, tmp_path, monkeypatch):
    flock = fcntl.flock

    def renamed_first(file, how):
        (tmp_path / ".out.partial").rename(tmp_path / "out")
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", renamed_first)
    with pytest.raises(OutputBusyError):
        export_here(checkpoint, tmp_path / "out")
    assert names_in(tmp_path) == ["out"]


@pytest.mark.parametrize(
    "recipe", [{}, {"bits": 32}, {"dtype": "float16"}, {"method": "gptq"}, {"cache": "int8"}], ids=str
)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["norm", "layers.1.mlp.up_proj", "layers.1.input_layernorm"])
def test_weights_that_are_no_numbers_are_refused(checkpoint, tmp_path, recipe, bad, name):
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors[f"model.{name}.weight"].reshape(-1)[5] = bad
    save_file(tensors, broken / "model.safetensors")
    if recipe.keys() & {"method", "cache"}:
        (tmp_path / "text").write_text("the lamp is on")
        recipe = recipe | {"calibration": tmp_path / "text"}
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: model\.{name}\.weight holds numbers that are not"):
        export_here(broken, tmp_path / "out", **recipe)
    assert not {"out", ".out.partial"} & {*names_in(tmp_path)}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("recipe", [{}, {"bits": 8}, {"zero_points": True}], ids=str)
def test_weights_without_a_finite_scale_are_refused(folder, tmp_path, recipe):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, :8] = np.finfo(np.float32).max
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"layers\.1\.down holds numbers that are too large to be rounded"):
        export_here(folder, tmp_path / "out", **recipe)
    assert names_in(tmp_path) == ["checkpoint"]
    assert export_here(folder, tmp_path / "out", bits=32).quantization.bits == 32


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_cache_that_would_hold_what_is_no_number_is_refused(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.self_attn.k_proj.weight"] *= np.float32(1e20)
    tensors["model.layers.1.input_layernorm.weight"] *= np.float32(1e20)
    save_file(tensors, folder / "model.safetensors")
    (tmp_path / "text").write_text("the lamp is on")
    with pytest.raises(CheckpointError, match="checkpoint: keys of layer 1 are beyond float32"):
        export_here(folder, tmp_path / "out", cache="int8", calibration=tmp_path / "text")
    assert names_in(tmp_path) == ["checkpoint", "text"]


@pytest.mark.parametrize("part", ["checkpoint", "adapter"])
def test_weights_that_change_while_they_are_read_are_refused(folder, adapter, tmp_path, part):
    file = folder / "model.safetensors" if part == "checkpoint" else adapter / "adapter_model.safetensors"

    def write_the_same_once_more(*_):
        with file.open("r+b") as opened_again:
            opened_again.write(file.read_bytes()[:8])

    refused = pytest.raises(CheckpointError, match=rf"{file.name}: it has changed while it was read")
    with Checkpoint.open(folder, adapter=adapter) as opened, refused:
        export(opened, Recipe(), tmp_path / "out", write_the_same_once_more)
    assert names_in(tmp_path) == ["adapter", "checkpoint"]


def test_weights_that_are_replaced_while_they_are_read_are_read_as_they_were(folder, tmp_path):
    expected = export_here(folder, tmp_path / "expected").files

    def put_another_in_its_place(*_):
        (tmp_path / "another").write_bytes(b"")
        (tmp_path / "another").replace(folder / "model.safetensors")

    with Checkpoint.open(folder) as opened:
        assert export(opened, Recipe(), tmp_path / "out", put_another_in_its_place).files == expected


def test_a_calibration_text_that_is_missing_is_named(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match="absent: it cannot be read"):
        export_here(checkpoint, tmp_path / "out", cache="int8", calibration=tmp_path / "absent")
    assert names_in(tmp_path) == []


def test_a_longer_context_than_the_model_was_made_for_is_refused(checkpoint, tmp_path):
    assert export_here(checkpoint, tmp_path / "short", sequence_length=64).architecture.max_positions == 64
    with pytest.raises(RecipeError, match="512"):
        export_here(checkpoint, tmp_path / "long", sequence_length=1024)


@pytest.mark.parametrize(
    ("choice", "nearest"),
    [
        ({"bits": 5}, "4"),
        ({"block_size": 100}, "128"),
        ({"method": "least_square"}, "least_squares"),
        ({"method": "GPTQ"}, "gptq"),
        ({"cache": "int4"}, "int8"),
        ({"window_cache": "bound"}, "bounded"),
        ({"instruct": "v3_tekken"}, "v3-tekken"),
        ({"sequence_length": 0}, "1"),
    ],
)
def test_a_choice_that_no_kernel_knows_names_the_nearest(choice, nearest):
    with pytest.raises(RecipeError, match=f"nearest that can is {nearest}"):
        Recipe(**choice)
