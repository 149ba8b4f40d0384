"""A GPTQ that was killed begins at the layer where it was, and makes what it would have made."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_assistant.bundle import WEIGHTS_FILE
from edge_assistant.errors import OutputSpaceError
from edge_assistant_export import passed, publish, reference
from edge_assistant_export.checkpoint import Checkpoint
from edge_assistant_export.cli import main
from edge_assistant_export.passed import Passed, bytes_at_most
from edge_assistant_export.recipe import Recipe
from edge_assistant_export.write import check_space, export

LAYERS = 3
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}
SHAPES = {"dense": {}, "tied": {"tie_word_embeddings": True}, "mixture": MIXTURE}
NAME = ".passed"


@pytest.fixture
def text(tmp_path) -> Path:
    stories = Path(__file__).parents[1] / "data" / "stories.txt"
    (tmp_path / "text").write_text(stories.read_text(encoding="utf-8")[:2000], encoding="utf-8")
    return tmp_path / "text"


@pytest.fixture
def attended(monkeypatch):
    """Return the layers that texts pass, from now on."""
    layers = []
    attend = reference.attend
    monkeypatch.setattr(
        reference, "attend", lambda model, layer, *rest: layers.append(layer) or attend(model, layer, *rest)
    )
    return layers


@pytest.fixture(params=SHAPES)
def checkpoint(request, tiny_checkpoint):
    with Checkpoint.open(tiny_checkpoint(num_hidden_layers=LAYERS, **SHAPES[request.param])) as opened:
        yield opened


def interrupted(checkpoint, recipe, out, at: float) -> int:
    """Export until a share of it is done; return how many layers the texts had passed."""

    def stop(stage, done, total):
        if stage == "weights" and done > at * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(checkpoint, recipe, out, stop)
    kept = Passed(out.with_name(f".{out.name}.partial") / NAME, SimpleNamespace(left=[], skip=lambda names: True))
    layers, _ = kept.found() or (0, None)
    return layers


@pytest.mark.parametrize("at", [0.1, 0.35, 0.5, 0.65, 0.8, 0.95])
def test_it_is_gone_on_with_behind_what_is_finished(checkpoint, text, tmp_path, attended, at):
    recipe = Recipe(method="gptq", calibration=text, name="same")
    whole = export(checkpoint, recipe, tmp_path / "whole")
    layers = interrupted(checkpoint, recipe, tmp_path / "out", at)
    attended.clear()
    assert export(checkpoint, recipe, tmp_path / "out").files == whole.files
    if layers:  # where a head is tied to the embedding, that was weighed before
        assert attended == list(range(layers, LAYERS))
    else:
        assert attended[-LAYERS:] == list(range(LAYERS))
    assert not (tmp_path / ".out.partial").exists()


@pytest.mark.parametrize("lost", ["weights", "state"])
def test_what_a_power_cut_lost_is_made_again(checkpoint, text, tmp_path, attended, lost):
    recipe = Recipe(method="gptq", calibration=text, name="same")
    whole = export(checkpoint, recipe, tmp_path / "whole")
    assert interrupted(checkpoint, recipe, tmp_path / "out", 0.8) > 0
    file = tmp_path / ".out.partial" / (WEIGHTS_FILE if lost == "weights" else NAME)
    content = bytearray(file.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    file.write_bytes(content)
    attended.clear()
    assert export(checkpoint, recipe, tmp_path / "out").files == whole.files
    assert attended[-LAYERS:] == list(range(LAYERS))


def test_without_room_for_it_the_export_is_as_it_was(checkpoint, text, tmp_path, monkeypatch):
    recipe = Recipe(method="gptq", calibration=text, name="same")
    whole = export(checkpoint, recipe, tmp_path / "whole")
    write_file = publish.write_file

    def full(path, *content):
        if NAME in path.name:
            raise OSError(28, "No space left on device")
        write_file(path, *content)

    monkeypatch.setattr(publish, "write_file", full)
    assert export(checkpoint, recipe, tmp_path / "out").files == whole.files


def test_it_is_no_larger_than_was_counted(checkpoint, text, tmp_path, monkeypatch):
    text.write_text(text.read_text(encoding="utf-8") * 40, encoding="utf-8")
    sizes = []
    replace_file = passed.replace_file

    def measured(path, *content):
        sizes.append(sum(map(len, content)))
        replace_file(path, *content)

    monkeypatch.setattr(passed, "replace_file", measured)
    export(checkpoint, Recipe(method="gptq", calibration=text), tmp_path / "out")
    assert len(sizes) == LAYERS
    assert 0.9 * bytes_at_most(checkpoint.config) < 2 * max(sizes) < bytes_at_most(checkpoint.config) + 20_000
    assert not (tmp_path / "out" / NAME).exists()


@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=str)
def test_the_disk_is_asked_for_it(tiny_checkpoint, text, tmp_path, monkeypatch, capsys, options):
    path = tiny_checkpoint()
    with Checkpoint.open(path) as opened:
        state = bytes_at_most(opened.config)
        export(opened, Recipe(), tmp_path / "measured")
    weights = (tmp_path / "measured" / WEIGHTS_FILE).stat().st_size
    free = SimpleNamespace(free=weights + publish._SPARE + state - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: free)
    arguments = [str(path), str(tmp_path / "out"), *options]
    assert main(["model", *arguments]) == 0
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert main(["model", *arguments, "--method", "gptq", "--calibration", str(text)]) == 1
    assert "GB are free there: make room" in capsys.readouterr().err
    free.free += 1
    assert main(["model", *arguments, "--method", "gptq", "--calibration", str(text)]) == 0
    with pytest.raises(OutputSpaceError):
        check_space(tmp_path / "other", free.free)
